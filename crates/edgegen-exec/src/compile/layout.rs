//! Which values share room, and which steps share threads, once all steps are known.

use super::{Compiler, Space, Stage};
use crate::constant::TOO_LARGE;
use crate::graph::Reason;
use crate::plan::{Plan, Share, Slot, Step};
use kernels::arena::{Place, room, share};
use kernels::dense::{self, Map};

impl Compiler<'_> {
    /// Lays out what is needed at the same time apart, and the rest over one another.
    pub(super) fn finish(mut self) -> Result<Plan, Reason> {
        let place = self.value(self.result)?;
        let target = Place::row_major(0, &place.dims);
        self.stage = Stage::Sample;
        let loops = self.loops([&target, &place])?;
        self.push(Step::Output { loops });
        let [conditions, time, sample] = std::mem::take(&mut self.steps);
        let stages = [conditions.len(), conditions.len() + time.len()];
        let mut steps: Vec<Step> = conditions.into_iter().chain(time).chain(sample).collect();

        let mut uses = [vec![None; self.memory.storages().len()], vec![None; self.bytes.storages().len()]];
        for (i, step) in steps.iter_mut().enumerate() {
            step.places(&mut |space, start| {
                let layout = if space == Space::Memory { &self.memory } else { &self.bytes };
                let (first, _) = uses[space as usize][layout.storage_at(*start)].unwrap_or((i, i));
                uses[space as usize][layout.storage_at(*start)] = Some((first, i));
            });
        }
        // the borders of a picture are its first use, and what lies in it is written before it is read: the next step
        // does not read it; and nothing that the next step uses lies where the picture does, if that is needed after it
        let mut shares: Vec<Share> = steps.iter().map(Step::share).collect();
        for (i, step) in steps.iter().enumerate().rev() {
            let Step::Border { view, levels } = step else { continue };
            if stages.contains(&(i + 1)) {
                continue;
            }
            let space = if levels.is_some() { Space::Bytes } else { Space::Memory };
            let layout = if space == Space::Memory { &self.memory } else { &self.bytes };
            let until = (i + 1..shares.len()).find(|j| shares[*j] != Share::BesideNext).unwrap_or(i);
            let used = uses[space as usize][layout.storage_at(view.start)];
            if used.is_some_and(|(first, last)| first == i && last >= until) && shares[until] != Share::Among(1) {
                shares[i] = Share::BesideNext;
            }
        }
        let [uses, uses8] = uses;
        // what one stage makes for another stays; what depends on the sample shares room
        let storages = self.memory.storages();
        let kept = |i: usize| uses[i].is_none_or(|(first, _)| first < stages[1]);
        let handed = |i: usize| {
            uses[i].is_some_and(|(first, last)| (stages[0]..stages[1]).contains(&first) && last >= stages[1])
        };
        let bound = |i: usize| uses[i].is_some_and(|(first, last)| first < stages[0] && last >= stages[0]);
        let is_constant = |i: usize| self.constants.iter().any(|(start, _)| self.memory.storage_at(*start) == i);
        let constant: Vec<bool> = (0..storages.len()).map(is_constant).collect();
        let mut starts = vec![0; storages.len()];
        let mut end = 0;
        let mut lay = |i: usize| {
            starts[i] = end;
            end += room(storages[i].len);
            end
        };
        let of_time_start = 0;
        let of_time_end = (0..storages.len()).filter(|i| handed(*i) && !constant[*i]).map(&mut lay).last().unwrap_or(0);
        let of_conditions = (0..storages.len()).filter(|i| bound(*i) && !constant[*i]);
        let of_conditions_end = of_conditions.map(&mut lay).last().unwrap_or(of_time_end);
        let fixed = (0..storages.len()).filter(|i| constant[*i] || (kept(*i) && !handed(*i) && !bound(*i)));
        let fixed_end = fixed.map(&mut lay).last().unwrap_or(of_conditions_end);
        let shared: Vec<_> =
            (0..storages.len()).map(|i| (storages[i].len, uses[i].filter(|_| !kept(i) && !constant[i]))).collect();
        let (low, memory_end) = share(&shared);
        (0..storages.len()).filter(|i| shared[*i].1.is_some()).for_each(|i| starts[i] = fixed_end + low[i]);
        let storages8 = self.bytes.storages();
        let shared8: Vec<_> = storages8.iter().zip(&uses8).map(|(s, u)| (s.len, *u)).collect();
        let (starts8, bytes_len) = share(&shared8);
        if fixed_end + memory_end > MOST_MEMORY {
            return Err(format!("a work space of {} numbers {TOO_LARGE}", fixed_end + memory_end));
        }

        let moved = |space: Space, at: usize| match space {
            Space::Memory => {
                let i = self.memory.storage_at(at);
                at - storages[i].start + starts[i]
            }
            Space::Bytes => {
                let i = self.bytes.storage_at(at);
                at - storages8[i].start + starts8[i]
            }
        };
        for step in &mut steps {
            step.places(&mut |space, start| *start = moved(space, *start));
        }
        let constants = self.constants.iter().map(|(start, v)| (moved(Space::Memory, *start), v.clone())).collect();
        Ok(Plan {
            isa: self.isa,
            steps,
            shares,
            stages,
            memory_len: fixed_end + memory_end + SLACK,
            bytes_len: bytes_len + SLACK,
            constants,
            of_time: Slot { start: of_time_start, len: of_time_end },
            of_conditions: Slot { start: of_time_end, len: of_conditions_end - of_time_end },
            work_len: self.work_len,
            extra_len: self.extra_len,
            classes: self.classes,
            conditions: self.conditions,
        })
    }
}

/// The most numbers that a work space may have: 2 GiB.
const MOST_MEMORY: usize = 1 << 29;

/// Numbers after the last, which kernels that read whole vectors may read.
const SLACK: usize = 64;

impl Step {
    /// Calls `f` with every place in a workspace that the step reads or writes.
    fn places(&mut self, f: &mut impl FnMut(Space, &mut usize)) {
        use Space::{Bytes, Memory};
        let output = |o: &mut dense::Output, f: &mut dyn FnMut(Space, &mut usize)| match o {
            dense::Output::Float(view) => f(Memory, &mut view.start),
            dense::Output::Levels(view, _) => f(Bytes, &mut view.start),
        };
        match self {
            Step::Input { loops } => f(Memory, &mut loops.starts[0]),
            Step::Time { to, .. } | Step::Class { to } | Step::Condition { to, .. } | Step::Clear { to } => {
                f(Memory, &mut to.start);
            }
            Step::Border { view, levels } => f(if levels.is_some() { Bytes } else { Memory }, &mut view.start),
            Step::Rows { index, to, .. } => [index, to].into_iter().for_each(|s| f(Memory, &mut s.start)),
            Step::Unary { loops, .. } | Step::EachRow { loops, .. } => {
                loops.starts.iter_mut().for_each(|s| f(Memory, s));
            }
            Step::Binary { loops, .. } => loops.starts.iter_mut().for_each(|s| f(Memory, s)),
            Step::Reduce { loops, out, .. } => {
                loops.starts.iter_mut().chain(&mut out.starts).for_each(|s| f(Memory, s));
            }
            Step::Product(product) => product.batch.starts.iter_mut().for_each(|s| f(Memory, s)),
            Step::Matrix { from, to, .. } => [from, to].into_iter().for_each(|s| f(Memory, &mut s.start)),
            Step::Convolution { extra, input, output, residual, .. } => {
                extra.iter_mut().for_each(|s| f(Memory, &mut s.start));
                [input, output].into_iter().chain(residual).for_each(|v| f(Memory, &mut v.start));
            }
            Step::Convolution8 { extra, input, output, output8, residual, .. } => {
                extra.iter_mut().for_each(|s| f(Memory, &mut s.start));
                output.iter_mut().chain(residual).for_each(|v| f(Memory, &mut v.start));
                f(Bytes, &mut input.start);
                output8.iter_mut().for_each(|(v, _)| f(Bytes, &mut v.start));
            }
            Step::Map { op, input, output: to } => {
                if let Map::Add(other) = op {
                    f(Memory, &mut other.start);
                }
                f(Memory, &mut input.start);
                output(to, f);
            }
            Step::Norm { input, output: to, .. } => {
                f(Memory, &mut input.start);
                output(to, f);
            }
            Step::Attention { attention: a, .. } => {
                [&mut a.query, &mut a.key, &mut a.value, &mut a.output]
                    .into_iter()
                    .for_each(|v| f(Memory, &mut v.start));
            }
            Step::Pool { input, output, .. } | Step::Upsample { input, output } => {
                [input, output].into_iter().for_each(|v| f(Memory, &mut v.start))
            }
            Step::Output { loops } => f(Memory, &mut loops.starts[1]),
        }
    }
}
