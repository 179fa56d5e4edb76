//! Pictures larger than the network's, as overlapping tiles.

use super::Network;
use crate::condition::Condition;
use crate::schedule::Level;
use crate::{Error, Result};

/// The size of the large picture, and how many pixels neighbouring tiles share at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// The picture's height.
    pub height: usize,
    /// The picture's width.
    pub width: usize,
    /// The pixels that two neighbouring tiles share at least, less than a tile has.
    pub overlap: usize,
}

/// A network for large pictures made of one for small ones (MultiDiffusion, arXiv 2302.08113): every prediction is
/// the mean of the inner network's predictions on tiles, each weighted by a window that falls towards the tile's
/// edges.
///
/// Tiles are laid evenly over the picture, as few as the overlap allows, and any size will do that is not smaller
/// than a tile. A picture of a tile's size is the inner network's, bit for bit.
pub struct Tiled<N> {
    network: N,
    shape: [usize; 3],
    rows: Vec<Span>,
    columns: Vec<Span>,
    tile: Vec<f32>,
    prediction: Vec<f32>,
}

/// Where tiles lie along one side.
struct Span {
    from: usize,
    /// The share of this tile in each of its rows or columns: those of all tiles add up to 1 everywhere.
    share: Vec<f32>,
}

impl<N: Network> Tiled<N> {
    /// `network`, whose samples must be pictures `[C, H, W]`, for pictures of the size that `tiling` says.
    ///
    /// # Errors
    /// When the network's samples are not pictures, the picture is smaller than a tile, or the overlap is not
    /// smaller than a tile.
    pub fn new(network: N, tiling: Tiling) -> Result<Self> {
        let &[channels, height, width] = network.sample_shape() else {
            let shape = network.sample_shape();
            return Err(Error::invalid(format!("samples of shape {shape:?} are not pictures, and cannot be tiles")));
        };
        if tiling.height < height || tiling.width < width {
            return Err(Error::invalid(format!(
                "the model's pictures have {width}x{height} pixels, and one of {}x{} is smaller",
                tiling.width, tiling.height
            )));
        }
        if tiling.overlap >= height.min(width) {
            return Err(Error::invalid(format!(
                "the tiles have {width}x{height} pixels, so they can overlap by {} at most, not {}",
                height.min(width) - 1,
                tiling.overlap
            )));
        }
        let buffer = vec![0.0; channels * height * width];
        Ok(Tiled {
            network,
            shape: [channels, tiling.height, tiling.width],
            rows: spans(tiling.height, height, tiling.overlap),
            columns: spans(tiling.width, width, tiling.overlap),
            tile: buffer.clone(),
            prediction: buffer,
        })
    }

    /// The number of tiles in a picture.
    pub fn tiles(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// Tiles of `tile` elements over `len`, evenly, sharing `overlap` or more.
fn spans(len: usize, tile: usize, overlap: usize) -> Vec<Span> {
    let count = 1 + (len - tile).div_ceil(tile - overlap);
    let start = |i: usize| if count == 1 { 0 } else { (i * (len - tile) + (count - 1) / 2) / (count - 1) };
    // sin², which is nowhere 0 at the centres of pixels
    let window = |i: usize| libm::sin(std::f64::consts::PI * (i as f64 + 0.5) / tile as f64).powi(2);
    let mut sum = vec![0.0; len];
    (0..count).for_each(|t| (0..tile).for_each(|i| sum[start(t) + i] += window(i)));
    let share = |from: usize| (0..tile).map(|i| (window(i) / sum[from + i]) as f32).collect();
    (0..count).map(|t| Span { from: start(t), share: share(start(t)) }).collect()
}

impl<N: Network> Network for Tiled<N> {
    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn bind(&mut self, slot: usize, condition: &Condition) -> Result<()> {
        self.network.bind(slot, condition)
    }

    fn lead_to(&mut self, level: Level) {
        self.network.lead_to(level);
    }

    fn time_of(&self, level: Level) -> f64 {
        self.network.time_of(level)
    }

    fn predict(&mut self, x: &[f32], t: f64, slot: usize, out: &mut [f32]) -> Result<()> {
        if self.tiles() == 1 {
            return self.network.predict(x, t, slot, out);
        }
        let [channels, height, width] = self.shape;
        out.fill(0.0);
        for row in &self.rows {
            for column in &self.columns {
                let (h, w) = (row.share.len(), column.share.len());
                let lines = |c: usize, y: usize| {
                    let large = (c * height + row.from + y) * width + column.from;
                    let small = (c * h + y) * w;
                    (large..large + w, small..small + w)
                };
                for (c, y) in (0..channels).flat_map(|c| (0..h).map(move |y| (c, y))) {
                    let (large, small) = lines(c, y);
                    self.tile[small].copy_from_slice(&x[large]);
                }
                self.network.predict(&self.tile, t, slot, &mut self.prediction)?;
                for (c, y) in (0..channels).flat_map(|c| (0..h).map(move |y| (c, y))) {
                    let (large, small) = lines(c, y);
                    let values = self.prediction[small].iter().zip(&column.share);
                    out[large].iter_mut().zip(values).for_each(|(o, (p, share))| *o += row.share[y] * share * p);
                }
            }
        }
        Ok(())
    }

    fn calls(&self, slot: usize) -> usize {
        self.tiles() * self.network.calls(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predicts its input, plus where in the tile an element is.
    struct Place([usize; 3], f32);

    impl Network for Place {
        fn sample_shape(&self) -> &[usize] {
            &self.0
        }

        fn predict(&mut self, x: &[f32], _: f64, _: usize, out: &mut [f32]) -> Result<()> {
            out.iter_mut().zip(x).enumerate().for_each(|(i, (o, x))| *o = x + self.1 * i as f32);
            Ok(())
        }
    }

    #[test]
    fn tiles_cover_any_size_and_add_up_to_one() {
        for (len, tile, overlap) in [(28, 28, 14), (29, 28, 14), (56, 28, 0), (57, 28, 0), (61, 8, 7), (97, 32, 5)] {
            let spans = spans(len, tile, overlap);
            let mut sum = vec![0.0; len];
            for span in &spans {
                span.share.iter().enumerate().for_each(|(i, share)| sum[span.from + i] += share);
            }
            assert!(sum.iter().all(|s| (s - 1.0f32).abs() < 1e-6), "{len} {tile} {overlap}: {sum:?}");
            assert_eq!((spans[0].from, spans[spans.len() - 1].from), (0, len - tile));
            let shared = spans.windows(2).map(|pair| tile - (pair[1].from - pair[0].from)).min();
            assert!(shared.is_none_or(|s| s >= overlap), "{len} {tile} {overlap}: {shared:?}");
        }
    }

    #[test]
    fn what_works_on_each_pixel_alone_knows_no_tiles() {
        let mut tiled = Tiled::new(Place([2, 5, 4], 0.0), Tiling { height: 11, width: 9, overlap: 2 }).unwrap();
        assert_eq!((tiled.sample_shape(), tiled.tiles(), tiled.calls(0)), (&[2, 11, 9][..], 3 * 4, 12));
        let x: Vec<f32> = (0..2 * 11 * 9).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut out = vec![f32::NAN; x.len()];
        tiled.predict(&x, 0.0, 0, &mut out).unwrap();
        assert!(x.iter().zip(&out).all(|(x, o)| (x - o).abs() < 1e-6));
    }

    #[test]
    fn one_tile_is_the_network_itself() {
        let x: Vec<f32> = (0..20).map(|i| i as f32 * 0.1).collect();
        let (mut plain, mut out) = (vec![0.0; 20], vec![0.0; 20]);
        Place([1, 5, 4], 0.3).predict(&x, 0.0, 0, &mut plain).unwrap();
        let mut tiled = Tiled::new(Place([1, 5, 4], 0.3), Tiling { height: 5, width: 4, overlap: 3 }).unwrap();
        tiled.predict(&x, 0.0, 0, &mut out).unwrap();
        assert_eq!(plain, out);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let tiled = |height, width, overlap| {
            Tiled::new(Place([1, 5, 4], 0.0), Tiling { height, width, overlap }).err().unwrap().to_string()
        };
        assert_eq!(tiled(5, 3, 0), "the model's pictures have 4x5 pixels, and one of 3x5 is smaller");
        assert_eq!(tiled(9, 9, 4), "the tiles have 4x5 pixels, so they can overlap by 3 at most, not 4");
        let flat = Tiled::new(Place([1, 1, 4], 0.0).flat(), Tiling { height: 9, width: 9, overlap: 0 });
        assert!(flat.err().unwrap().to_string().contains("[4] are not pictures"));
    }

    impl Place {
        fn flat(self) -> Flat {
            Flat([self.0.iter().product()])
        }
    }

    struct Flat([usize; 1]);

    impl Network for Flat {
        fn sample_shape(&self) -> &[usize] {
            &self.0
        }

        fn predict(&mut self, _: &[f32], _: f64, _: usize, _: &mut [f32]) -> Result<()> {
            unreachable!("it is not run")
        }
    }
}
