//! Whether what the command line asks for can be, before any of it is allocated.

use anyhow::{Context, Result, ensure};
use edgegen::output::Format;

/// More threads than any machine has cores.
const MOST_THREADS: usize = 4096;

/// Whether there is memory for `count` of something of so many bytes each, which `flag` asks for.
pub fn memory(flag: &str, count: usize, bytes_each: usize) -> Result<()> {
    let bytes = count.checked_mul(bytes_each);
    // asked for and given back: an allocation that fails would end the program
    let given = bytes.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    ensure!(given, "{flag} asks for {count}, for which there is not enough memory: make fewer at a time");
    Ok(())
}

/// Whether a machine may have so many threads.
pub fn threads(count: usize) -> Result<()> {
    ensure!((1..=MOST_THREADS).contains(&count), "--threads must be from 1 to {MOST_THREADS}, not {count}");
    Ok(())
}

/// Whether a picture of `grid` samples, each of so many pixels, can be written in this format.
pub fn grid(format: Format, grid: (usize, usize), sample: (usize, usize)) -> Result<()> {
    let most = match format {
        Format::Jpeg | Format::Gif => usize::from(u16::MAX),
        _ => i32::MAX as usize,
    };
    let side = |n: usize, of: usize| n.checked_mul(of).filter(|side| *side <= most);
    let (columns, rows) = grid;
    side(columns, sample.0).zip(side(rows, sample.1)).with_context(|| {
        format!("a picture of {columns}x{rows} samples has more than {most} pixels a side: lay them out in a smaller --grid, or write .npy")
    })?;
    Ok(())
}
