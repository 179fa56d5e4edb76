//! Which values share room, and which steps share threads, once all steps are known.

use super::{Compiler, Stage};
use crate::place::{Access, Buffer, Places, Region, Slice};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::step::{Boundary, ScratchLen, Share, Step};
use crate::verify::{Draft, SLACK, Storage, verify};
use kernels::arena::{Layout, Precision, StridedView, room, share};
use std::ops::Range;

/// When a storage is used: its first and its last step.
type Uses = Vec<Option<(usize, usize)>>;

impl Compiler<'_, '_> {
    /// Lays out what is needed at the same time apart, and the rest over one another.
    pub(super) fn finish(mut self) -> Result<Plan, Reason> {
        self.stage = Stage::Sample;
        self.precision = Precision::F32;
        let mut results = Vec::new();
        for name in self.results.clone() {
            self.bring(name)?;
            results.push(self.value(name)?);
        }
        if let Some(whole) = results.first().filter(|_| self.twice).cloned() {
            results.splice(..1, halves(whole));
        }
        for (index, place) in results.into_iter().enumerate() {
            let [to, from] = self.strided([&StridedView::row_major(0, &place.dims), &place])?;
            let mut places = Places::default();
            let from = places.strided(Access::Read, from);
            self.push_step(Step::boundary(Boundary::Result { from, to, index }, places));
        }

        let [conditions, time, sample] = std::mem::take(&mut self.steps);
        let stages = [conditions.len(), conditions.len() + time.len()];
        let mut steps: Vec<Step> = conditions.into_iter().chain(time).chain(sample).collect();
        let uses = uses([&self.memory, &self.halves, &self.bytes], &mut steps);
        share_borders(&mut steps, stages, &uses);

        let layouts = [&self.memory, &self.halves, &self.bytes];
        let mut rooms = Vec::new();
        for ((layout, buffer), uses) in layouts.into_iter().zip(Buffer::ALL).zip(&uses) {
            let constant: Vec<bool> = if buffer == Buffer::Floats {
                let mut constant = vec![false; layout.storages().len()];
                self.constants.iter().for_each(|(start, _)| constant[layout.storage_at(*start)] = true);
                constant
            } else {
                vec![false; layout.storages().len()]
            };
            rooms.push(Rooms::new(layout, uses, stages, &constant));
        }
        // the storages of each buffer that are used, and the number of the first among those of all buffers
        let used = [0, 1, 2].map(|i| rooms[i].number_used());
        let counts = [0, 1, 2].map(|i| used[i].iter().flatten().count());
        let first = [0, counts[0], counts[0] + counts[1]];
        let mut storages = Vec::new();
        for ((rooms, buffer), numbers) in rooms.iter().zip(Buffer::ALL).zip(&used) {
            storages.extend((0..numbers.len()).filter(|i| numbers[*i].is_some()).map(|i| Storage {
                buffer,
                start: rooms.starts[i],
                len: rooms.lens[i],
                constant: rooms.constant[i],
            }));
        }
        for place in steps.iter_mut().flat_map(|step| step.places.iter_mut()) {
            // until now the number of the storage among those of its buffer
            let buffer = place.buffer as usize;
            let (rooms, layout) = (&rooms[buffer], layouts[buffer]);
            let number = used[buffer][place.storage].map(|n| n + first[buffer]);
            let within = place.region.start() - layout.storages()[place.storage].start;
            place.region.move_to(rooms.starts[place.storage] + within);
            place.storage = number.ok_or("a place in a storage that is not used")?;
        }
        let constants = std::mem::take(&mut self.constants);
        let moved = |start: usize| rooms[0].starts[self.memory.storage_at(start)];
        let constants = constants.into_iter().map(|(start, values)| (moved(start), values)).collect();
        let scratch =
            steps.iter().filter_map(|s| Some(s.kernel()?.scratch(&s.places))).fold(ScratchLen::default(), |a, b| {
                ScratchLen { work: a.work.max(b.work), copied: a.copied.max(b.copied) }
            });
        let lens = [0, 1, 2].map(|i| rooms[i].end.saturating_add(SLACK));
        let of_buffers = Buffer::ALL.iter().map(|b| lens[*b as usize].saturating_mul(b.size()));
        let of_scratch = scratch.work.saturating_add(scratch.copied).saturating_mul(4);
        let most_bytes = self.graph.room_for(of_buffers.fold(of_scratch, usize::saturating_add))?;
        let handed = [0, 1].map(|stage| rooms[0].handed[stage].clone());
        let draft = Draft {
            steps,
            stages,
            storages,
            lens,
            most_bytes,
            constants,
            handed: handed.map(|r| Slice { start: r.start, len: r.len() }),
            scratch,
            conditions: self.conditions,
        };
        let plan = Plan::new(self.isa, verify(draft)?, self.tables);
        self.graph.take_bytes(plan.workspace_bytes())?;
        Ok(plan)
    }
}

/// The first and the second half of a value's channels, its second dimension.
fn halves(whole: StridedView) -> [StridedView; 2] {
    let mut first = whole;
    first.dims[1] /= 2;
    let mut second = first.clone();
    second.start += first.dims[1] * first.strides[1];
    [first, second]
}

/// When the storages of each buffer are used. Each place gets the number of its storage among those of its buffer.
fn uses(layouts: [&Layout; 3], steps: &mut [Step]) -> [Uses; 3] {
    let mut uses = layouts.map(|layout| vec![None; layout.storages().len()]);
    for (i, step) in steps.iter_mut().enumerate() {
        for place in step.places.iter_mut() {
            place.storage = layouts[place.buffer as usize].storage_at(place.region.start());
            let (first, _) = uses[place.buffer as usize][place.storage].unwrap_or((i, i));
            uses[place.buffer as usize][place.storage] = Some((first, i));
        }
    }
    uses
}

/// The borders of an image are its first use, and what lies in it is written before it is read: the next step does not read
/// it; and nothing that the next step uses lies where the image does, if that is needed after it. So a border is cleared
/// beside the next step that threads share.
fn share_borders(steps: &mut [Step], stages: [usize; 2], uses: &[Uses; 3]) {
    // the first step after this one that is not run beside the next
    let mut until = steps.len();
    for i in (0..steps.len()).rev() {
        let after = std::mem::replace(&mut until, i);
        let mut places = steps[i].places.iter();
        let Some(place) = places.next().filter(|p| matches!(p.region, Region::Edges(_))) else { continue };
        if stages.contains(&(i + 1)) {
            continue;
        }
        let used = uses[place.buffer as usize][place.storage];
        let shared = steps.get(after).is_some_and(|step| step.share != Share::Among(1));
        if shared && used.is_some_and(|(first, last)| first == i && last >= after) {
            steps[i].share = Share::BesideNext;
            until = after;
        }
    }
}

/// Where the storages of one buffer go.
struct Rooms {
    starts: Vec<usize>,
    lens: Vec<usize>,
    used: Vec<bool>,
    constant: Vec<bool>,
    /// What the first and the second stage make for later ones.
    handed: [Range<usize>; 2],
    end: usize,
}

impl Rooms {
    /// What one stage makes for another stays, and so does what does not change; the rest shares room.
    fn new(layout: &Layout, uses: &Uses, stages: [usize; 2], constant: &[bool]) -> Self {
        let storages = layout.storages();
        let stage = |step: usize| stages.iter().filter(|first| step >= **first).count();
        let crosses = |i: usize| uses[i].is_some_and(|(first, last)| stage(first) != stage(last));
        let handed_by = |i: usize| uses[i].filter(|_| crosses(i) && !constant[i]).map(|(first, _)| stage(first));
        let (mut starts, mut end) = (vec![0; storages.len()], 0usize);
        let mut handed = [0..0, 0..0];
        for (number, range) in handed.iter_mut().enumerate() {
            range.start = end;
            for i in (0..storages.len()).filter(|i| handed_by(*i) == Some(number)) {
                starts[i] = end;
                end += room(storages[i].len);
            }
            range.end = end;
        }
        for i in (0..storages.len()).filter(|i| constant[*i]) {
            starts[i] = end;
            end += room(storages[i].len);
        }
        let shared: Vec<_> =
            (0..storages.len()).map(|i| (storages[i].len, uses[i].filter(|_| !constant[i] && !crosses(i)))).collect();
        let (low, shared_end) = share(&shared);
        (0..storages.len()).filter(|i| shared[*i].1.is_some()).for_each(|i| starts[i] = end + low[i]);
        end = end.saturating_add(shared_end);
        Rooms {
            starts,
            lens: storages.iter().map(|s| s.len).collect(),
            used: (0..storages.len()).map(|i| uses[i].is_some() || constant[i]).collect(),
            constant: constant.to_vec(),
            handed,
            end,
        }
    }

    /// For each storage that is used, its number among those.
    fn number_used(&self) -> Vec<Option<usize>> {
        let mut count = 0;
        let mut number = |used: &bool| {
            count += usize::from(*used);
            used.then(|| count - 1)
        };
        self.used.iter().map(&mut number).collect()
    }
}
