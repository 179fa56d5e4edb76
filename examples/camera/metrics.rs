//! How near a picture is to another, both with values from 0 to 1.

/// The peak signal-to-noise ratio in decibels, `-10 log10 mean (a - b)²`.
pub fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let square: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    -10.0 * (square / a.len() as f64).max(1e-10).log10()
}

/// The side of SSIM's window, and the standard deviation of its weights.
const WINDOW: usize = 11;
const SPREAD: f64 = 1.5;

/// The mean structural similarity of two pictures `width` wide (Wang et al., IEEE TIP 2004, eq. 13): a Gaussian window
/// of 11×11 and σ = 1.5, K = (0.01, 0.03), at those places where the window lies inside.
pub fn ssim(a: &[f32], b: &[f32], width: usize) -> f64 {
    let height = a.len() / width;
    let middle = (WINDOW / 2) as f64;
    let weight: Vec<f64> =
        (0..WINDOW).map(|i| (-(i as f64 - middle).powi(2) / (2.0 * SPREAD * SPREAD)).exp()).collect();
    let total: f64 = weight.iter().sum();
    let [c1, c2] = [0.01f64.powi(2), 0.03f64.powi(2)];
    let (mut sum, mut count) = (0.0, 0.0);
    for top in 0..=height - WINDOW {
        for left in 0..=width - WINDOW {
            // the moments E a, E b, E a², E b², E a b
            let mut m = [0.0; 5];
            for (dy, dx) in (0..WINDOW).flat_map(|dy| (0..WINDOW).map(move |dx| (dy, dx))) {
                let at = (top + dy) * width + left + dx;
                let (a, b) = (f64::from(a[at]), f64::from(b[at]));
                let w = weight[dy] * weight[dx] / (total * total);
                m.iter_mut().zip([a, b, a * a, b * b, a * b]).for_each(|(m, v)| *m += w * v);
            }
            let [a, b, aa, bb, ab] = m;
            let (va, vb, cov) = (aa - a * a, bb - b * b, ab - a * b);
            sum += (2.0 * a * b + c1) * (2.0 * cov + c2) / ((a * a + b * b + c1) * (va + vb + c2));
            count += 1.0;
        }
    }
    sum / count
}
