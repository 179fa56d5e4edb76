//! The last pass over a plan, before it ever runs: a list of rules.
//!
//! A plan that passes touches nothing but its arena, its weights and its scratch, no two values that are needed at the same
//! time overlap, and no two threads meet at a number that one of them writes. Nothing else in this crate is relied on for
//! that. [`Verified`] can only be had from here.

use crate::place::{Access, Buffer, Place, Region, Slice, Strided};
use crate::reason::Reason;
use crate::step::{Kernel, ScratchLen, Share, Step};
use kernels::arena::{Extent, ImageView};
use kernels::conv8;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

/// Numbers after the last value, which kernels that read whole vectors may read.
pub const SLACK: usize = 64;

/// A stretch of a buffer that values lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Which buffer.
    pub buffer: Buffer,
    /// Where it starts.
    pub start: usize,
    /// How many numbers it has.
    pub len: usize,
    /// Whether it holds numbers that are written once, when a workspace is made.
    pub constant: bool,
}

impl Storage {
    fn end(&self) -> Option<usize> {
        self.start.checked_add(self.len)
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// All of a plan that concerns memory.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Those that depend on conditions alone come first, then those that depend on time and class too, then the others.
    pub steps: Vec<Step>,
    /// Where the steps that depend on time begin, and where those that depend on the sample do.
    pub stages: [usize; 2],
    /// Where values lie.
    pub storages: Vec<Storage>,
    /// The numbers of each buffer, in the order of [`Buffer::ALL`].
    pub lens: [usize; 3],
    /// The bytes that all arenas together may have: what the model's budget had left.
    pub most_bytes: usize,
    /// The numbers that do not change, and where they lie.
    pub constants: Vec<(usize, Vec<f32>)>,
    /// What the steps that depend on conditions alone make for the others, and what those that depend on time make for those
    /// that depend on the sample: it is remembered, for each condition that is bound and for each time.
    pub handed: [Slice; 2],
    /// The room that each thread has.
    pub scratch: ScratchLen,
    /// The length of each condition.
    pub conditions: Vec<usize>,
}

/// A plan's steps and memory that have passed.
#[derive(Clone, Debug)]
pub struct Verified(Draft);

impl std::ops::Deref for Verified {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.0
    }
}

/// Says whether a plan keeps a rule, or how it breaks it.
type Rule = fn(&Draft) -> Result<(), String>;

/// Proves a plan.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(draft: Draft) -> Result<Verified, Reason> {
    let rules: [Rule; 8] = [
        storages_lie_in_their_buffers,
        constants_fill_their_storages,
        places_lie_in_their_storages,
        kernels_accept_their_places,
        steps_do_not_disturb_themselves,
        live_values_do_not_overlap,
        what_stages_hand_on_is_remembered_whole,
        threads_do_not_meet,
    ];
    for rule in rules {
        rule(&draft).map_err(|e| Reason::Malformed(format!("its plan is not sound: {e}")))?;
    }
    Ok(Verified(draft))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The arenas are no larger than the model's budget, and every storage lies in its own, with room for whole vectors after it.
fn storages_lie_in_their_buffers(draft: &Draft) -> Result<(), String> {
    let sum = |all: usize, buffer: &Buffer| all.checked_add(draft.lens[*buffer as usize].checked_mul(buffer.size())?);
    let bytes = Buffer::ALL.iter().try_fold(0, sum);
    ensure(bytes.is_some_and(|bytes| bytes <= draft.most_bytes), || "its arena is too large".into())?;
    for storage in &draft.storages {
        let len = draft.lens[storage.buffer as usize];
        let inside = storage.end().and_then(|end| end.checked_add(SLACK)).is_some_and(|end| end <= len);
        ensure(inside, || format!("{storage:?} is beyond its buffer's {len}"))?;
    }
    Ok(())
}

/// What does not change fills a storage of its own, and every storage that is said not to change is filled.
fn constants_fill_their_storages(draft: &Draft) -> Result<(), String> {
    let mut filled: Vec<(usize, usize)> = draft.constants.iter().map(|(start, all)| (*start, all.len())).collect();
    let constant = draft.storages.iter().filter(|s| s.constant);
    let mut said: Vec<(usize, usize)> = constant.clone().map(|s| (s.start, s.len)).collect();
    filled.sort_unstable();
    said.sort_unstable();
    let floats = constant.into_iter().all(|s| s.buffer == Buffer::Floats);
    ensure(floats && filled == said, || "stored numbers are not where they belong".into())
}

/// All numbers of every place lie within its storage, which is of its buffer; and images are of that buffer's numbers.
fn places_lie_in_their_storages(draft: &Draft) -> Result<(), String> {
    for place in draft.steps.iter().flat_map(|step| step.places.iter()) {
        let storage = draft.storages.get(place.storage).filter(|s| s.buffer == place.buffer);
        let extent = place.extent().filter(|_| place.is_of_its_buffer());
        let inside = storage.zip(extent).is_some_and(|(s, e)| s.start <= e.start && e.end <= s.range().end);
        ensure(inside, || format!("{place:?} is not within its storage"))?;
    }
    Ok(())
}

/// Every kernel says of its places that they fit its weights and each other, and has the scratch that it asks for.
fn kernels_accept_their_places(draft: &Draft) -> Result<(), String> {
    for step in &draft.steps {
        step.check(&draft.conditions).map_err(|e| format!("{}: {e}", step.name()))?;
        let needed = step.kernel().map_or(ScratchLen::default(), |kernel| kernel.scratch(&step.places));
        let room = needed.work <= draft.scratch.work && needed.copied <= draft.scratch.copied;
        ensure(room, || format!("{} needs more scratch", step.name()))?;
    }
    Ok(())
}

/// No step writes what it reads, but for kernels that work in place, and then only exactly there; what several threads may
/// write has each number once; and nothing writes what does not change.
fn steps_do_not_disturb_themselves(draft: &Draft) -> Result<(), String> {
    for step in &draft.steps {
        let name = || step.name();
        for written in step.places.iter().filter(|p| p.access != Access::Read) {
            ensure(!draft.storages[written.storage].constant, || format!("{} writes stored numbers", name()))?;
            let alone = step.share == Share::Among(1) && written.access == Access::Accumulate;
            ensure(alone || written.region.is_injective(), || format!("{} writes a number twice", name()))?;
            for read in step.places.iter().filter(|p| p.access == Access::Read) {
                let same = step.kernel().is_some_and(Kernel::works_in_place) && written.region.is_same(&read.region);
                ensure(same || !overlap(draft, written, read), || format!("{} writes what it reads", name()))?;
            }
        }
    }
    Ok(())
}

/// The steps that use a storage: the first and the last, and whether the first writes it.
#[derive(Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
    written_first: bool,
}

fn lives(draft: &Draft) -> Vec<Option<Life>> {
    let mut lives: Vec<Option<Life>> = vec![None; draft.storages.len()];
    for (i, step) in draft.steps.iter().enumerate() {
        for place in step.places.iter() {
            let written = place.access != Access::Read;
            let life = lives[place.storage].get_or_insert(Life { first: i, last: i, written_first: false });
            life.written_first |= life.first == i && written;
            life.last = i;
        }
    }
    lives
}

/// Which stage a step is in.
fn stage(draft: &Draft, step: usize) -> usize {
    draft.stages.iter().filter(|first| step >= **first).count()
}

/// Storages that overlap are needed at different times of one stage's run, or each in one stage alone; what one stage hands
/// to a later one, and what does not change, overlaps nothing; and nothing is read before it is written.
fn live_values_do_not_overlap(draft: &Draft) -> Result<(), String> {
    // each with the first and the last step at which it must be left alone
    let mut used: Vec<(usize, usize, Storage)> = Vec::new();
    for (storage, life) in draft.storages.iter().zip(lives(draft)) {
        if let Some(life) = life {
            ensure(storage.constant || life.written_first, || format!("{storage:?} is read before it is written"))?;
        }
        let shares = life.filter(|l| !storage.constant && stage(draft, l.first) == stage(draft, l.last));
        if storage.len > 0 && (storage.constant || life.is_some()) {
            let (first, last) = shares.map_or((0, usize::MAX), |life| (life.first, life.last));
            used.push((first, last, *storage));
        }
    }
    used.sort_by_key(|(first, ..)| *first);
    // the storages that are live at the step that is looked at lie apart, so that a further one need only be compared with
    // the two beside it: in time that grows with their number, and not with its square
    let place = |storage: &Storage| (storage.buffer, storage.start);
    let (mut live, mut ends) = (BTreeMap::new(), BinaryHeap::new());
    for (first, last, storage) in used {
        while let Some(Reverse((_, gone))) = ends.peek().copied().filter(|Reverse((end, _))| *end < first) {
            ends.pop();
            live.remove(&gone);
        }
        let before = live.range(..=place(&storage)).next_back();
        let after = live.range(place(&storage)..).next();
        for (_, other) in [before, after].into_iter().flatten() {
            let other: &Storage = other;
            let (a, b) = (storage.range(), other.range());
            let apart = other.buffer != storage.buffer || a.end <= b.start || b.end <= a.start;
            ensure(apart, || format!("{storage:?} and {other:?} overlap"))?;
        }
        live.insert(place(&storage), storage);
        ends.push(Reverse((last, place(&storage))));
    }
    Ok(())
}

/// What a stage makes for a later one lies in the part that is remembered of it, which has nothing else, and no later stage
/// writes it.
fn what_stages_hand_on_is_remembered_whole(draft: &Draft) -> Result<(), String> {
    let [of_time, of_sample] = draft.stages;
    ensure(of_time <= of_sample && of_sample <= draft.steps.len(), || "its stages are not in order".into())?;
    for handed in draft.handed {
        let inside = handed.start.checked_add(handed.len).is_some_and(|end| end <= draft.lens[Buffer::Floats as usize]);
        ensure(inside, || "what is remembered is beyond the arena".into())?;
    }
    let lives = lives(draft);
    for (storage, life) in draft.storages.iter().zip(&lives) {
        let from = life.filter(|l| !storage.constant && stage(draft, l.first) < stage(draft, l.last));
        let from = from.map(|life| stage(draft, life.first));
        let range = storage.range();
        for (i, handed) in draft.handed.iter().enumerate() {
            let floats = storage.buffer == Buffer::Floats;
            let inside = floats && handed.start <= range.start && range.end <= handed.end();
            let outside = !floats || range.is_empty() || range.end <= handed.start || handed.end() <= range.start;
            let right = if from == Some(i) { inside } else { outside || (life.is_none() && !storage.constant) };
            ensure(right, || format!("{storage:?} is not remembered as it should be"))?;
        }
    }
    for (i, step) in draft.steps.iter().enumerate() {
        for place in step.places.iter().filter(|p| p.access != Access::Read) {
            let first = lives[place.storage].map_or(i, |life| life.first);
            ensure(stage(draft, first) == stage(draft, i), || "a stage writes what an earlier one made".into())?;
        }
    }
    Ok(())
}

/// Steps that are run beside the next one, and that next one, touch nothing that another of them writes.
fn threads_do_not_meet(draft: &Draft) -> Result<(), String> {
    let (mut first, mut seen) = (0, Seen::of(draft));
    while first < draft.steps.len() {
        let beside = draft.steps[first..].iter().take_while(|step| step.share == Share::BesideNext).count();
        let last = first + beside;
        if beside > 0 {
            ensure(last < draft.steps.len(), || "a step goes beside none".into())?;
            ensure(stage(draft, first) == stage(draft, last), || "a step goes beside one of another stage".into())?;
            seen.nothing_is_met(&draft.steps[first..=last])?;
        }
        first = last + 1;
    }
    Ok(())
}

/// What steps have touched so far, number by number: so that many steps are compared in time that grows with what they
/// touch, as a call's own does, and not with the square of their number.
struct Seen {
    /// For each number of each buffer, whether it was read and whether it was written.
    numbers: [Vec<u8>; 3],
}

impl Seen {
    const READ: u8 = 1;
    const WRITTEN: u8 = 2;

    fn of(draft: &Draft) -> Self {
        // memory that is all zeros costs nothing where it is not touched
        Seen { numbers: draft.lens.map(|len| vec![0; len]) }
    }

    /// Makes sure that no step writes what another touches. Places lie in the arenas.
    fn nothing_is_met(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut met = false;
        for step in steps {
            for place in step.places.iter() {
                let others = if place.access == Access::Read { Self::WRITTEN } else { Self::READ | Self::WRITTEN };
                self.for_each(place, |seen| met |= *seen & others != 0);
            }
            for place in step.places.iter() {
                let mark = if place.access == Access::Read { Self::READ } else { Self::WRITTEN };
                self.for_each(place, |seen| *seen |= mark);
            }
        }
        steps.iter().flat_map(|step| step.places.iter()).for_each(|place| self.for_each(place, |seen| *seen = 0));
        ensure(!met, || "two threads would meet".into())
    }

    fn for_each(&mut self, place: &Place, mut f: impl FnMut(&mut u8)) {
        let numbers = &mut self.numbers[place.buffer as usize];
        place.for_each_run(&mut |run| numbers[run].iter_mut().for_each(&mut f));
    }
}

/// Whether two places have a number in common. They lie in their storages.
fn overlap(draft: &Draft, a: &Place, b: &Place) -> bool {
    let (Some(x), Some(y)) = (a.extent(), b.extent()) else { return true };
    let (start, end) = (x.start.max(y.start), x.end.min(y.end));
    if a.buffer != b.buffer || start >= end {
        return false;
    }
    // they are interleaved, as the parts of a concatenation are: all of their numbers are looked at
    debug_assert!(end <= draft.lens[a.buffer as usize]);
    let mut taken = vec![false; end - start];
    let within = |run: Range<usize>| run.start.clamp(start, end) - start..run.end.clamp(start, end) - start;
    a.for_each_run(&mut |run| taken[within(run)].fill(true));
    let mut found = false;
    b.for_each_run(&mut |run| found |= taken[within(run)].contains(&true));
    found
}

impl Place {
    /// Whether an image's numbers are those of the buffer that it is in.
    fn is_of_its_buffer(&self) -> bool {
        match &self.region {
            Region::Image(v) | Region::Bordered(v) | Region::Edges(v) => {
                self.buffer == Buffer::Bytes || self.buffer == Buffer::of(v.precision)
            }
            Region::Slice(_) | Region::Strided(_) => true,
        }
    }

    /// The channels of an image that are touched: kernels of bytes read whole groups of them.
    fn channels(&self, view: &Extent) -> Option<usize> {
        match (self.buffer, &self.region) {
            (Buffer::Bytes, Region::Bordered(_)) => view.c.checked_next_multiple_of(conv8::CHANNELS),
            _ => Some(view.c),
        }
    }

    /// From the first to the last of its numbers, if there are any and they can be counted.
    pub fn extent(&self) -> Option<Range<usize>> {
        match &self.region {
            Region::Slice(Slice { start, len }) => Some(*start..start.checked_add(*len)?),
            Region::Strided(Strided { start, dims, strides }) => {
                let last = dims
                    .iter()
                    .zip(strides)
                    .try_fold(*start, |at, (d, s)| at.checked_add(d.checked_sub(1)?.checked_mul(*s)?))?;
                Some(*start..last.checked_add(1)?)
            }
            Region::Image(v) => image_extent(v, [0, 0], v.c),
            Region::Bordered(v) => image_extent(v, v.border, self.channels(v)?),
            // the room of a whole pixel belongs to what fills it up
            Region::Edges(v) => image_extent(v, v.border, v.pixel),
        }
    }

    /// Calls `f` with runs of numbers that are all of it.
    pub fn for_each_run(&self, f: &mut dyn FnMut(Range<usize>)) {
        match &self.region {
            Region::Slice(s) => f(s.start..s.end()),
            Region::Strided(s) => strided_runs(s, f),
            Region::Image(v) => view_runs(v, [0, 0], v.c, f),
            Region::Bordered(v) => view_runs(v, v.border, self.channels(v).unwrap_or(v.c), f),
            Region::Edges(v) => {
                let Some(v) = ImageView::new(*v) else { return };
                v.edges().for_each(|(at, len)| f(at..at + len));
                if self.buffer == Buffer::Bytes {
                    v.pixels().for_each(|at| f(at + v.c..at + v.pixel));
                }
            }
        }
    }
}

/// From the first to the last number of an image with this border, if it can be a view at all.
fn image_extent(v: &Extent, border: [usize; 2], c: usize) -> Option<Range<usize>> {
    ImageView::new(*v)?;
    let [rows, pixels] = border;
    let before = rows.checked_mul(v.row)?.checked_add(pixels.checked_mul(v.pixel)?)?;
    let down = v.h.checked_sub(1)?.checked_add(rows)?.checked_mul(v.row)?;
    let across = v.w.checked_sub(1)?.checked_add(pixels)?.checked_mul(v.pixel)?;
    let last = v.start.checked_add(down)?.checked_add(across)?;
    Some(v.start.checked_sub(before)?..last.checked_add(c)?)
}

fn view_runs(v: &Extent, [rows, pixels]: [usize; 2], c: usize, f: &mut dyn FnMut(Range<usize>)) {
    let corner = v.start - rows * v.row - pixels * v.pixel;
    for y in 0..v.h + 2 * rows {
        let line = corner + y * v.row;
        if v.pixel == c {
            f(line..line + (v.w + 2 * pixels) * c);
            continue;
        }
        for x in 0..v.w + 2 * pixels {
            f(line + x * v.pixel..line + x * v.pixel + c);
        }
    }
}

fn strided_runs(s: &Strided, f: &mut dyn FnMut(Range<usize>)) {
    // numbers beside each other are one run
    let side_by_side = (0..s.dims.len()).find(|d| s.strides[*d] == 1 && s.dims[*d] > 1);
    let mut dims = s.dims;
    let len = side_by_side.map_or(1, |d| std::mem::replace(&mut dims[d], 1));
    let (mut index, mut at) = ([0; crate::place::MOST_DIMS], s.start);
    loop {
        f(at..at + len);
        let Some(d) = (0..index.len()).rev().find(|d| index[*d] + 1 < dims[*d]) else { return };
        for (index, stride) in index.iter_mut().zip(&s.strides).skip(d + 1) {
            at -= std::mem::take(index) * stride;
        }
        index[d] += 1;
        at += s.strides[d];
    }
}

impl Region {
    /// Whether two regions are the same numbers, for whatever goes over each in the same order.
    fn is_same(&self, other: &Region) -> bool {
        match (self, other) {
            (Region::Image(a), Region::Image(b)) => Extent { border: b.border, ..*a } == *b,
            _ => self == other,
        }
    }

    /// Whether no number is named twice: each distance is greater than all that lies within it.
    fn is_injective(&self) -> bool {
        let apart = |mut sides: Vec<(usize, usize)>| {
            sides.retain(|(_, n)| *n != 1);
            sides.sort_unstable();
            let last = sides.into_iter().try_fold(0usize, |last, (stride, n)| {
                last.checked_add((stride > last).then(|| n.checked_sub(1)?.checked_mul(stride))??)
            });
            last.is_some()
        };
        match self {
            Region::Slice(_) => true,
            Region::Strided(s) => apart(s.strides.into_iter().zip(s.dims).collect()),
            Region::Image(v) => apart(vec![(1, v.c), (v.pixel, v.w), (v.row, v.h)]),
            Region::Bordered(v) | Region::Edges(v) => {
                let side = |n: usize, border: usize| border.saturating_mul(2).saturating_add(n);
                apart(vec![(1, v.pixel), (v.pixel, side(v.w, v.border[1])), (v.row, side(v.h, v.border[0]))])
            }
        }
    }
}

#[cfg(test)]
mod tests;
