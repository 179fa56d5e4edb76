//! A thousand plans with one number changed: whatever an independent look at every number that is touched finds fault with
//! is refused, and what passes runs without a panic. Under AddressSanitizer or Miri the runs are looked at, too:
//! `RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p edgegen-exec --lib --target x86_64-unknown-linux-gnu`, and
//! `cargo +nightly miri test -p edgegen-exec verify` with fewer plans.

use super::*;
use crate::place::{MOST_DIMS, Places};
use crate::step::Boundary;
use crate::testing::{noise, random_plan};
use crate::{At, Plan};
use kernels::Isa;
use kernels::arena::Precision;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::collections::{HashMap, HashSet};

/// More numbers than any place of these plans has.
const MOST: usize = 1 << 20;

/// Every number of a place by its plain definition, each as (buffer, number); `None` if there are too many or one cannot be
/// counted. Written apart from what the verifier does, in numbers that do not overflow.
fn numbers(place: &Place) -> Option<Vec<i128>> {
    let mut all = Vec::new();
    let mut add = |at: i128| {
        all.push(at);
        (all.len() <= MOST).then_some(())
    };
    let image = |v: &Extent, rows: i128, pixels: i128, c: i128, add: &mut dyn FnMut(i128, i128, i128) -> Option<()>| {
        if (v.h as i128 + 2 * rows) * (v.w as i128 + 2 * pixels) * c > MOST as i128 {
            return None;
        }
        for y in -rows..v.h as i128 + rows {
            for x in -pixels..v.w as i128 + pixels {
                for i in 0..c {
                    add(y, x, i)?;
                }
            }
        }
        Some(())
    };
    let at = |v: &Extent, y: i128, x: i128, i: i128| v.start as i128 + y * v.row as i128 + x * v.pixel as i128 + i;
    match &place.region {
        Region::Slice(s) => {
            (s.len <= MOST).then_some(())?;
            (0..s.len).try_for_each(|i| add((s.start + i) as i128))?;
        }
        Region::Strided(s) => {
            let count = s.dims.iter().fold(1u128, |n, d| n.saturating_mul(*d as u128));
            (count <= MOST as u128).then_some(())?;
            for i in 0..count {
                let (mut rest, mut place) = (i, s.start as i128);
                for d in (0..MOST_DIMS).rev() {
                    place += (rest % s.dims[d] as u128) as i128 * s.strides[d] as i128;
                    rest /= s.dims[d] as u128;
                }
                add(place)?;
            }
        }
        Region::Image(v) => image(v, 0, 0, v.c as i128, &mut |y, x, i| add(at(v, y, x, i)))?,
        Region::Bordered(v) => {
            let c = if place.buffer == Buffer::Bytes { v.c.next_multiple_of(4) } else { v.c };
            let [rows, pixels] = v.border.map(|b| b as i128);
            image(v, rows, pixels, c as i128, &mut |y, x, i| add(at(v, y, x, i)))?;
        }
        Region::Edges(v) => {
            let [rows, pixels] = v.border.map(|b| b as i128);
            let bytes = place.buffer == Buffer::Bytes;
            image(v, rows, pixels, v.pixel as i128, &mut |y, x, i| {
                let inside = (0..v.h as i128).contains(&y) && (0..v.w as i128).contains(&x);
                let filler = bytes && i >= v.c as i128;
                if inside && !filler { Some(()) } else { add(at(v, y, x, i)) }
            })?;
        }
    }
    Some(all)
}

/// What of a plan a sanitizer would find fault with, or what reads a number that another value has taken the place of: found
/// by going over every number of every place in the order of a call, twice, the second time as if the time were known.
fn fault(draft: &Draft) -> Option<String> {
    let len = |buffer: Buffer| draft.lens[buffer as usize] as i128;
    let mut touched = Vec::new();
    for step in &draft.steps {
        let mut of_step = Vec::new();
        for place in step.places.iter() {
            let Some(all) = numbers(place) else { return Some("a place of too many numbers".into()) };
            if let Some(at) = all.iter().find(|at| !(0..len(place.buffer)).contains(*at)) {
                return Some(format!("number {at} of {place:?} is outside"));
            }
            of_step.push((place, all));
        }
        touched.push(of_step);
    }
    // two threads: one is at a step that goes beside the next ones, the other already at one of those
    for (i, step) in draft.steps.iter().enumerate().filter(|(_, s)| s.share == Share::BesideNext) {
        let mut j = i;
        while draft.steps[j].share == Share::BesideNext {
            j += 1;
            let Some(next) = touched.get(j) else { return Some("a step beside none".into()) };
            for ((a, x), (b, y)) in touched[i].iter().flat_map(|a| next.iter().map(move |b| (a, b))) {
                let meet = a.buffer == b.buffer && x.iter().any(|at| y.contains(at));
                if meet && (a.access != Access::Read || b.access != Access::Read) {
                    return Some(format!("{} meets the step {j}", step.name()));
                }
            }
        }
    }
    let constant = |storage: usize| draft.storages.get(storage).is_some_and(|s| s.constant);
    // whose value a number is
    let mut owners: HashMap<(Buffer, i128), usize> = HashMap::new();
    let handed = |owners: &HashMap<(Buffer, i128), usize>, slice: &Slice| -> HashMap<(Buffer, i128), usize> {
        let within = |at: &i128| (slice.start as i128..(slice.start + slice.len) as i128).contains(at);
        owners
            .iter()
            .filter(|((buffer, at), _)| *buffer == Buffer::Floats && within(at))
            .map(|(k, v)| (*k, *v))
            .collect()
    };
    let mut remembered = HashMap::new();
    // what a storage has made of a number in this call, or in the stages before
    let mut made: HashSet<(Buffer, i128, usize)> = HashSet::new();
    for call in 0..2 {
        if call == 1 {
            owners.extend(remembered.iter().map(|(k, v): (&(Buffer, i128), &usize)| (*k, *v)));
            made = remembered.iter().map(|((buffer, at), storage)| (*buffer, *at, *storage)).collect();
        }
        for (i, step) in touched.iter().enumerate().skip(if call == 0 { 0 } else { draft.stages[1] }) {
            if i == draft.stages[1] && call == 0 {
                remembered = handed(&owners, &draft.handed[1]);
                remembered.extend(handed(&owners, &draft.handed[0]));
            }
            for (place, all) in step.iter().filter(|(p, _)| p.access == Access::Read && !constant(p.storage)) {
                let key = |at: &i128| (place.buffer, *at);
                let taken = |at: &i128| owners.get(&key(at)).is_some_and(|owner| *owner != place.storage);
                let lost = |at: &i128| made.contains(&(place.buffer, *at, place.storage)) && taken(at);
                if all.iter().any(lost) {
                    return Some(format!("step {i} reads what another value has taken the place of"));
                }
            }
            for (place, all) in step.iter().filter(|(p, _)| p.access != Access::Read) {
                for at in all {
                    owners.insert((place.buffer, *at), place.storage);
                    made.insert((place.buffer, *at, place.storage));
                }
            }
        }
    }
    // what does not change
    for ((place, all), storage) in touched.iter().flatten().flat_map(|p| draft.storages.iter().map(move |s| (p, s))) {
        let within = |at: &i128| (storage.start as i128..(storage.start + storage.len) as i128).contains(at);
        let floats = place.buffer == Buffer::Floats && storage.constant;
        if floats && place.access != Access::Read && all.iter().any(within) {
            return Some("stored numbers are overwritten".into());
        }
    }
    None
}

/// Changes one number of a plan, to a little more or less, to none, to another's, or to a huge one.
fn change(draft: &mut Draft, random: &mut Pcg64Mcg) {
    let delta = [1, 1, 2, 3, 16, 64][random.random_range(0..6)];
    let how = random.random_range(0..6);
    let huge = 1usize << random.random_range(20..64);
    let alter = |n: &mut usize| {
        *n = match how {
            0 | 1 => n.wrapping_add(delta),
            2 | 3 => n.saturating_sub(delta),
            4 => 0,
            _ => huge,
        };
    };
    let number = random.random_range(0..64);
    let storages = draft.storages.len();
    match random.random_range(0..12) {
        0 => {
            let storage = &mut draft.storages[number % storages];
            alter(if how % 2 == 0 { &mut storage.start } else { &mut storage.len });
        }
        1 => alter(&mut draft.lens[number % 3]),
        2 => alter(&mut draft.stages[number % 2]),
        3 => {
            let handed = &mut draft.handed[number % 2];
            alter(if how % 2 == 0 { &mut handed.start } else { &mut handed.len });
        }
        4 => {
            let step = random.random_range(0..draft.steps.len());
            let alone = draft.steps[step].kernel().is_none_or(|k| k.cost(&draft.steps[step].places).is_none());
            draft.steps[step].share = if alone { Share::BesideNext } else { Share::Among(3) };
        }
        _ => {
            let steps: Vec<&mut Step> = draft.steps.iter_mut().filter(|s| s.places.iter().count() > 0).collect();
            let which = random.random_range(0..steps.len());
            let places: Vec<&mut Place> = steps.into_iter().nth(which).expect("a step").places.iter_mut().collect();
            let which = random.random_range(0..places.len());
            let place = places.into_iter().nth(which).expect("a place");
            if number == 0 {
                return place.storage = random.random_range(0..storages);
            }
            match &mut place.region {
                Region::Slice(s) => alter(if number % 2 == 0 { &mut s.start } else { &mut s.len }),
                Region::Strided(s) => match number % 3 {
                    0 => alter(&mut s.start),
                    1 => alter(&mut s.dims[number / 3 % MOST_DIMS]),
                    _ => alter(&mut s.strides[number / 3 % MOST_DIMS]),
                },
                Region::Image(v) | Region::Bordered(v) | Region::Edges(v) => {
                    let all = [&mut v.start, &mut v.c, &mut v.h, &mut v.w, &mut v.pixel, &mut v.row];
                    match number % 8 {
                        n @ 0..6 => alter(all.into_iter().nth(n).expect("six")),
                        n => alter(&mut v.border[n - 6]),
                    }
                }
            }
        }
    }
}

/// Runs a plan at two times, on one thread and on three.
fn run(plan: &Plan, dims: &[usize], random: &mut Pcg64Mcg) {
    let len = dims.iter().product();
    for threads in if cfg!(miri) { [2].as_slice() } else { &[1, 3] } {
        let mut w = plan.shared_workspace(*threads).unwrap();
        plan.bind(&mut w, 0, std::iter::once(noise(random, 5).as_slice()));
        for t in [3.0, 700.0, 3.0] {
            let (x, mut out) = (noise(random, len), vec![0.0; len]);
            plan.run(&mut w, At { x: &x, t, ..At::default() }, &mut out);
        }
    }
}

#[test]
fn a_plan_with_one_number_changed_is_refused_or_does_no_harm() {
    let (plans, each) = if cfg!(miri) { (4, 10) } else { (100, 40) };
    let (mut refused, mut passed, mut faults) = (0, 0, 0);
    for seed in 0..plans {
        let isa = *Isa::available().last().expect("the portable one");
        let isa = if cfg!(miri) { isa } else { Isa::detect() };
        let precision = if seed % 2 == 0 { Precision::F32 } else { Precision::F16 };
        let (dims, plan) = random_plan(precision, isa, seed);
        let sound = plan.draft();
        assert!(cfg!(miri) || fault(&sound).is_none(), "the plan of seed {seed}: {:?}", fault(&sound));
        let mut random = Pcg64Mcg::seed_from_u64(1000 + seed);
        run(&plan, &dims, &mut random);
        for mutant in 0..each {
            let mut draft = sound.clone();
            change(&mut draft, &mut random);
            // under Miri the runs are what is looked at
            let found = match draft_counts(&draft) {
                true if cfg!(miri) => None,
                true => fault(&draft),
                false => Some("numbers that cannot be counted".into()),
            };
            faults += usize::from(found.is_some());
            match verify(draft) {
                Err(_) => refused += 1,
                Ok(verified) => {
                    assert_eq!(found, None, "mutant {mutant} of seed {seed} passed");
                    passed += 1;
                    run(&plan.with(verified), &dims, &mut random);
                }
            }
        }
    }
    // the test tells plans apart: many have a fault, and many of those without one run
    assert!(
        (faults > refused / 4 || cfg!(miri)) && passed > plans as usize,
        "{refused} refused, {faults} with a fault, {passed} ran"
    );
    println!("{refused} refused, of which {faults} were found to do harm; {passed} passed and ran");
}

#[test]
fn very_many_steps_beside_the_next_take_no_time_by_their_square() {
    const MANY: usize = if cfg!(miri) { 100 } else { 300_000 };
    let (_, plan) = random_plan(Precision::F32, Isa::PORTABLE, 0);
    let step = |i: usize, share: Share| {
        let mut places = Places::default();
        let to = places.slice(Access::Write, Slice { start: 2 * i, len: 1 });
        let from = Slice { start: 2 * i + 1, len: 1 };
        places.slice(Access::Read, from);
        Step { share, ..Step::boundary(Boundary::Class { to }, places) }
    };
    let mut steps: Vec<Step> = (0..MANY).map(|i| step(i, Share::BesideNext)).collect();
    steps.push(step(MANY, Share::Among(1)));
    let draft = Draft { steps, stages: [0; 2], lens: [2 * MANY + 2, 0, 0], ..plan.draft() };
    assert_eq!(threads_do_not_meet(&draft), Ok(()));
    // the first writes what the last reads, reads what it writes, or writes that too; to read the same is no harm
    for (place, start, access, meet) in [
        (0, 2 * MANY + 1, Access::Write, true),
        (1, 2 * MANY, Access::Read, true),
        (0, 2 * MANY, Access::Write, true),
        (1, 2 * MANY + 1, Access::Read, false),
    ] {
        let mut draft = draft.clone();
        let first = draft.steps[0].places.iter_mut().nth(place).expect("two places");
        assert_eq!(first.access, access);
        first.region.move_to(start);
        assert_eq!(threads_do_not_meet(&draft).is_err(), meet, "place {place} at {start}");
    }
    let alone = Draft { steps: draft.steps[..3].to_vec(), ..draft.clone() };
    assert!(threads_do_not_meet(&alone).is_err(), "beside none");
    assert!(threads_do_not_meet(&Draft { stages: [0, MANY], ..draft }).is_err(), "of another stage");
}

/// Whether the sizes of a plan's arenas are such that one could be made.
fn draft_counts(draft: &Draft) -> bool {
    let small = |s: &Storage| s.start < MOST * 64 && s.len < MOST * 64;
    let handed = draft.handed.iter().all(|h| h.start < MOST * 64 && h.len < MOST * 64);
    draft.storages.iter().all(small) && handed && draft.stages[1] <= draft.steps.len()
}
