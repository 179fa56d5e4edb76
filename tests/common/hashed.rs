//! Large weights of fixtures, made by a counter and a hash as `tools/fixtures/hashed.py` has it.

use super::Folder;
use serde::Deserialize;

/// A tensor of `weights.bin`: its place in the stream, its length, its factor, one for all or one for each row, and its shape
/// where it is stored with rows and columns exchanged.
#[derive(Deserialize)]
struct Weight {
    start: u64,
    count: usize,
    factors: Vec<f32>,
    turned: Option<[usize; 2]>,
}

impl Weight {
    /// -1, 0 or 1 by the mixing function of splitmix64.
    fn sign(counter: u64) -> f32 {
        let mut z = (counter + 1).wrapping_mul(0x9E3779B97F4A7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
        z ^= z >> 31;
        ((z >> 33) % 3) as f32 - 1.0
    }

    fn bytes(&self) -> Vec<u8> {
        let row = self.count / self.factors.len();
        let value = |i: usize| Self::sign(self.start + i as u64) * self.factors[i / row];
        let at = |i: usize| match self.turned {
            Some([_, columns]) => value(i % columns * (self.count / columns) + i / columns),
            None => value(i),
        };
        (0..self.count).flat_map(|i| at(i).to_le_bytes()).collect()
    }
}

/// Writes the `weights.bin` that a `weights.json` describes.
pub fn write_weights(description: &[u8], folder: &Folder) {
    let weights: Vec<Weight> = serde_json::from_slice(description).unwrap();
    let bytes: Vec<u8> = weights.iter().flat_map(Weight::bytes).collect();
    std::fs::write(folder.path("weights.bin"), bytes).unwrap();
}
