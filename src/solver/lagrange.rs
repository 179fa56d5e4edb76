//! Polynomials through given points, integrated.

/// The weight of each node's value in `∫ P dρ`, where P is the polynomial in u through the values at
/// `nodes`, and `moments[k] = ∫ u^k dρ`; there are as many moments as nodes.
pub(super) fn weights(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    (0..nodes.len())
        .map(|j| basis(nodes, j).iter().zip(moments).map(|(coefficient, moment)| coefficient * moment).sum())
        .collect()
}

/// The coefficients, from the constant on, of the polynomial that is 1 at node `j` and 0 at the others.
fn basis(nodes: &[f64], j: usize) -> Vec<f64> {
    let mut polynomial = vec![1.0];
    for (k, node) in nodes.iter().enumerate().filter(|(k, _)| *k != j) {
        debug_assert_ne!(k, j);
        let scale = 1.0 / (nodes[j] - node);
        // times (u - node)/(node_j - node)
        let mut product = vec![0.0; polynomial.len() + 1];
        for (power, c) in polynomial.iter().enumerate() {
            product[power] -= c * node * scale;
            product[power + 1] += c * scale;
        }
        polynomial = product;
    }
    polynomial
}

/// Solves the square system `a x = b`, row by row in `a`, by elimination with pivoting.
pub(super) fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs())).unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            let (above, below) = a.split_at_mut(row);
            below[0].iter_mut().zip(&above[column]).for_each(|(x, y)| *x -= factor * y);
            b[row] -= factor * b[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * b[k]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_of_the_degree_are_integrated_exactly() {
        let nodes = [0.5, -1.0, 2.0, 3.5];
        let p = |u: f64| 2.0 - u + 0.25 * u * u + 3.0 * u.powi(3);
        // dρ = du from 0 to 1
        let moments = [1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0];
        let sum: f64 = weights(&nodes, &moments).iter().zip(nodes).map(|(w, u)| w * p(u)).sum();
        assert!((sum - (2.0 - 0.5 + 0.25 / 3.0 + 0.75)).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn systems_are_solved_even_if_rows_must_be_swapped() {
        let x = solve(vec![vec![0.0, 2.0, 1.0], vec![1.0, 1.0, 1.0], vec![3.0, 0.0, -1.0]], vec![7.0, 6.0, 0.0]);
        x.iter().zip([1.0, 2.0, 3.0]).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{x:?}"));
    }
}
