//! Where values lie: storages one after the other, or sharing room where they are not needed at the same time.

use super::{Extent, ImageView, Precision};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Lays values out one after the other, each in a storage of its own.
#[derive(Default)]
pub struct Layout {
    len: usize,
    storages: Vec<Storage>,
    precision: Precision,
}

/// A run of numbers that values lie in.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Where it starts.
    pub start: usize,
    /// How long it is.
    pub len: usize,
}

/// The numbers that a storage of `len` takes: storages start at multiples of whole vectors.
pub fn room(len: usize) -> usize {
    len.max(1).checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

impl Layout {
    /// Of values in such numbers.
    pub fn of(precision: Precision) -> Self {
        Layout { precision, ..Layout::default() }
    }

    /// A storage of `len` numbers; none if all of them are more than can be counted.
    pub fn storage(&mut self, len: usize) -> Option<usize> {
        let start = self.len;
        self.len = start.checked_add(len.max(1).checked_next_multiple_of(16)?)?;
        self.storages.push(Storage { start, len });
        Some(start)
    }

    /// A place for a picture with a border of zeros around it; none if it is empty, or more than can be counted.
    pub fn place(&mut self, sides: [usize; 3], border: [usize; 2]) -> Option<ImageView> {
        self.places(1, sides, border)?.pop()
    }

    /// Places for so many pictures in one storage, as far from each other as the first two are; none as for
    /// [`place`](Self::place).
    pub fn places(&mut self, count: usize, [c, h, w]: [usize; 3], border: [usize; 2]) -> Option<Vec<ImageView>> {
        let side = |n: usize, i: usize| border[i].checked_mul(2)?.checked_add(n);
        let row = side(w, 1)?.checked_mul(c)?;
        let corner = border[0].checked_mul(row)?.checked_add(border[1].checked_mul(c)?)?;
        let len = side(h, 0)?.checked_mul(row)?;
        let precision = self.precision;
        let view = |start: usize| ImageView::new(Extent { c, h, w, start, pixel: c, row, border, precision });
        // before anything is laid out
        let all = len.checked_mul(count)?;
        view(self.len.checked_add(all)?.checked_add(corner)?)?;
        let start = self.storage(all)?.checked_add(corner)?;
        (0..count).map(|i| view(start + i * len)).collect()
    }

    /// The numbers that all of it takes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The storages, in the order of their starts.
    pub fn storages(&self) -> &[Storage] {
        &self.storages
    }

    /// Which storage the number at `at` is in, or the last one before it.
    pub fn storage_at(&self, at: usize) -> usize {
        self.storages.partition_point(|s| s.start <= at).saturating_sub(1)
    }
}

/// More storages than the plans of large networks have, which are some thousands.
const MANY: usize = 1 << 13;

/// Where storages are to lie so that those that are needed at the same time do not overlap: each has a first and a last
/// step at which it is needed. The greatest are laid first, each as low as it can be; that takes time by the square of their
/// number, so more than some thousands are laid in the order of their first steps. Gives the starts, and the end.
pub fn share(storages: &[(usize, Option<(usize, usize)>)]) -> (Vec<usize>, usize) {
    if storages.len() > MANY {
        return share_many(storages);
    }
    let mut order: Vec<usize> = (0..storages.len()).filter(|i| storages[*i].1.is_some()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(storages[*i].0));
    let mut starts = vec![0usize; storages.len()];
    let (mut end, mut laid): (usize, Vec<usize>) = (0, Vec::new());
    for i in order {
        let (len, Some((first, last))) = storages[i] else { continue };
        let len = room(len);
        let mut taken: Vec<(usize, usize)> = laid
            .iter()
            .filter(|j| storages[**j].1.is_some_and(|(f, l)| f <= last && first <= l))
            .map(|j| (starts[*j], starts[*j].saturating_add(room(storages[*j].0))))
            .collect();
        taken.sort_unstable();
        let mut at = 0usize;
        for (from, to) in taken {
            if len <= from.saturating_sub(at) {
                break;
            }
            at = at.max(to);
        }
        starts[i] = at;
        end = end.max(at.saturating_add(len));
        laid.push(i);
    }
    (starts, end)
}

/// The same in the order of the storages' first steps, each in the smallest gap that earlier ones left.
fn share_many(storages: &[(usize, Option<(usize, usize)>)]) -> (Vec<usize>, usize) {
    let used = storages.iter().enumerate();
    let mut order: Vec<_> = used.filter_map(|(i, (len, steps))| steps.map(|s| (s, i, room(*len)))).collect();
    order.sort_unstable();
    let (mut starts, mut end, mut gaps) = (vec![0; storages.len()], 0usize, Gaps::default());
    // by the last step at which they are needed
    let mut live = BinaryHeap::new();
    for ((first, last), i, len) in order {
        while let Some(Reverse((gone, j, room))) = live.peek().copied() {
            if gone >= first {
                break;
            }
            live.pop();
            gaps.add(starts[j], room);
        }
        starts[i] = gaps.take(len).unwrap_or_else(|| {
            end = end.saturating_add(len);
            end - len
        });
        live.push(Reverse((last, i, len)));
    }
    (starts, end)
}

/// Runs of numbers that are free; those that touch are one.
#[derive(Default)]
struct Gaps {
    /// Where each starts, and its length.
    by_start: BTreeMap<usize, usize>,
    by_length: BTreeSet<(usize, usize)>,
}

impl Gaps {
    fn add(&mut self, mut start: usize, mut len: usize) {
        if let Some((before, l)) = self.by_start.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + l == start
        {
            self.remove(before, l);
            (start, len) = (before, l + len);
        }
        if let Some(l) = self.by_start.get(&(start + len)).copied() {
            self.remove(start + len, l);
            len += l;
        }
        self.by_start.insert(start, len);
        self.by_length.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(len, start));
    }

    /// The first numbers of the smallest gap that has as many.
    fn take(&mut self, len: usize) -> Option<usize> {
        let (most, start) = *self.by_length.range((len, 0)..).next()?;
        self.remove(start, most);
        if most > len {
            self.by_start.insert(start + len, most - len);
            self.by_length.insert((most - len, start + len));
        }
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_storages_of_one_time_do_not_overlap_and_others_share() {
        // lengths and steps from a linear congruential generator
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % below) as usize
        };
        let count = if cfg!(miri) { 60 } else { 600 };
        let all: Vec<_> = (0..count)
            .map(|i| (1 + next(100), (i % 7 != 0).then(|| next(500)).map(|first| (first, first + next(40)))))
            .collect();
        let (starts, end) = share_many(&all);
        for (i, (len, steps)) in all.iter().enumerate() {
            let Some((first, last)) = steps else { continue };
            assert!(starts[i] + len <= end);
            for (j, (l, others)) in all.iter().enumerate().take(i) {
                let Some((f, t)) = others else { continue };
                let apart = starts[i] + len <= starts[j] || starts[j] + l <= starts[i];
                assert!(apart || last < f || t < first, "{i} {j}");
            }
        }
        let (_, least) = share(&all);
        assert!(end < 2 * least, "{end} against {least}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes hours there; what it runs is run by the test of many storages too")]
    fn very_many_storages_take_no_time_by_their_square() {
        const ALL: usize = 300_000;
        // all are needed at the end, and none at one time
        let (_, end) = share(&(0..ALL).map(|i| (16, Some((i, ALL)))).collect::<Vec<_>>());
        assert_eq!(end, 16 * ALL);
        let (_, end) = share(&(0..ALL).map(|i| (16, Some((i, i + 1)))).collect::<Vec<_>>());
        assert_eq!(end, 32);
    }

    #[test]
    fn storages_of_one_time_do_not_overlap_and_others_share() {
        let all = [(100, Some((0, 2))), (50, Some((1, 3))), (100, Some((3, 5))), (7, None), (20, Some((2, 4)))];
        let (starts, end) = share(&all);
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate().take(i) {
                let (Some(x), Some(y)) = (a.1, b.1) else { continue };
                if x.0 <= y.1 && y.0 <= x.1 {
                    assert!(starts[i] + a.0 <= starts[j] || starts[j] + b.0 <= starts[i], "{i} {j}");
                }
            }
        }
        assert_eq!(starts[0], starts[2]);
        assert!(end <= 112 + 64 + 32);
    }
}
