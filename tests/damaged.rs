//! Damaged models do no harm: files cut short, with bytes changed, and with fields of their graphs changed, taken away,
//! doubled or put in each other's place. Each is read or refused in one line; edgegen's own code never panics on
//! the way (panics of tract's are caught), nor asks for much memory, nor takes long.
//!
//! 26,000 damaged models take 17 seconds of processor time. `EDGEGEN_MUTATIONS=10 cargo test --workspace --test damaged`
//! makes ten times as many: 260,000 took 175 seconds of it, and none did harm.

mod common;
#[path = "common/allocations.rs"]
mod counting;

use common::fixture;
use counting::Counting;
use edgegen::config::SchedulerConfig;
use edgegen::noise::Noise;
use edgegen::{ModelOptions, Network};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// The most that a small model may ask for at once.
const MOST_BYTES: usize = 1 << 30;
/// The longest that one may take: far more than any does, for slow machines.
const LONGEST: Duration = Duration::from_secs(20);

thread_local! {
    /// What edgegen's own code panicked of.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Notes panics instead of printing them: those of edgegen's own code.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // the library wraps the hook that is there when it first loads a model, and the hook that is set later sees all
        assert!(ModelOptions::new().read(&[]).is_err());
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map_or(String::new(), |l| format!("{}:{}", l.file(), l.line()));
            if place.starts_with("tests/") {
                return usual(info);
            }
            // a panic in the standard library is that of who called it
            let ours = if place.contains("/library/") || place.contains("/rustc/") {
                !std::backtrace::Backtrace::force_capture().to_string().contains("tract_")
            } else {
                place.starts_with("src/") || place.starts_with("crates/")
            };
            if ours {
                PANICS.with_borrow_mut(|all| all.push(place));
            }
        }));
    });
}

/// A field of a protobuf message.
#[derive(Clone)]
enum Field {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Message),
}

/// Fields with their tags (number and wire type).
type Message = Vec<(u64, Field)>;

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The message that these bytes may be. Texts may look like one, which does no harm: they are written as they were.
fn decode(mut bytes: &[u8]) -> Option<Message> {
    let mut message = Message::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        if !(1..=60).contains(&(tag >> 3)) {
            return None;
        }
        let take = |bytes: &mut &[u8], n: usize| {
            let (taken, rest) = bytes.split_at_checked(n)?;
            *bytes = rest;
            Some(taken.to_vec())
        };
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => Field::Fixed(take(&mut bytes, 8)?),
            5 => Field::Fixed(take(&mut bytes, 4)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, length)?;
                match decode(&inner) {
                    Some(message) if !message.is_empty() && encode(&message) == inner => Field::Message(message),
                    _ => Field::Bytes(inner),
                }
            }
            _ => return None,
        };
        message.push((tag, field));
    }
    Some(message)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, field) in message {
        put_varint(&mut bytes, *tag);
        let mut counted = |inner: &[u8]| {
            put_varint(&mut bytes, inner.len() as u64);
            bytes.extend_from_slice(inner);
        };
        match field {
            Field::Bytes(inner) => counted(inner),
            Field::Message(inner) => counted(&encode(inner)),
            Field::Fixed(inner) => bytes.extend_from_slice(inner),
            Field::Varint(value) => put_varint(&mut bytes, *value),
        }
    }
    bytes
}

/// Every message in one, itself included.
fn messages(message: &Message) -> usize {
    let inner = |(_, f): &(u64, Field)| if let Field::Message(m) = f { messages(m) } else { 0 };
    1 + message.iter().map(inner).sum::<usize>()
}

/// The message with this number among them.
fn message_at(message: &mut Message, mut index: usize) -> &mut Message {
    if index == 0 {
        return message;
    }
    index -= 1;
    for (_, field) in message {
        if let Field::Message(inner) = field {
            let count = messages(inner);
            if index < count {
                return message_at(inner, index);
            }
            index -= count;
        }
    }
    unreachable!("there are as many")
}

/// Short texts: names, operators.
fn texts(message: &Message, found: &mut Vec<Field>) {
    for (_, field) in message {
        match field {
            Field::Bytes(text) if text.len() < 64 => found.push(field.clone()),
            Field::Message(inner) => {
                // a text may have been read as a message
                let bytes = encode(inner);
                if bytes.len() < 64 && bytes.is_ascii() {
                    found.push(Field::Bytes(bytes));
                }
                texts(inner, found);
            }
            _ => {}
        }
    }
}

#[derive(Clone)]
struct Mutator {
    random: Noise,
    whole: Message,
    texts: Vec<Field>,
}

/// Numbers that are at the edge of something.
const EDGES: [i64; 16] = [0, 1, 2, 3, 4, 5, 7, 64, 255, -1, -2, 1 << 16, 1 << 31, (1 << 31) - 1, i64::MAX, i64::MIN];

impl Mutator {
    fn new(bytes: &[u8]) -> Self {
        let whole = decode(bytes).unwrap();
        assert!(encode(&whole) == bytes, "the file is written as it was");
        let mut found = Vec::new();
        texts(&whole, &mut found);
        Mutator { random: Noise::new(0, 0), whole, texts: found }
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.random.uniform() * n as f32) as usize).min(n - 1)
    }

    fn number(&mut self, was: u64) -> u64 {
        match self.below(4) {
            0 => was.wrapping_add(1),
            1 => was.wrapping_sub(1),
            _ => EDGES[self.below(EDGES.len())] as u64,
        }
    }

    /// One to three fields changed.
    fn graph(&mut self) -> Vec<u8> {
        let mut whole = self.whole.clone();
        for _ in 0..=self.below(3) {
            let count = messages(&whole);
            let place = self.below(count);
            // fields of a message, half of the time those of a short one
            let message = message_at(&mut whole, place);
            if message.is_empty() {
                continue;
            }
            let (i, j) = (self.below(message.len()), self.below(message.len()));
            match self.below(8) {
                0 => drop(message.remove(i)),
                1 => message.push(message[i].clone()),
                2 => message.swap(i, j),
                // what another field of its kind holds
                3 if message[i].0 == message[j].0 => message[i].1 = message[j].1.clone(),
                _ => {
                    let chosen = self.below(self.texts.len());
                    let text = self.texts[chosen].clone();
                    let roll = self.below(8);
                    match &mut message[i].1 {
                        Field::Varint(v) => *v = self.number(*v),
                        Field::Fixed(bytes) => {
                            let value = [0.0, -1.0, 1e30, f32::NAN, f32::INFINITY][roll % 5];
                            bytes[..4].copy_from_slice(&value.to_le_bytes());
                        }
                        Field::Bytes(bytes) if bytes.len() >= 64 => bytes.truncate(bytes.len() * roll / 8),
                        // lists of whole numbers, as attributes and dimensions are packed
                        Field::Bytes(bytes) if roll < 3 => {
                            bytes.clear();
                            for _ in 0..=roll {
                                let value = self.number(1);
                                put_varint(bytes, value);
                            }
                        }
                        // stored whole numbers
                        Field::Bytes(bytes) if roll < 5 && bytes.len() % 8 == 0 => {
                            let value = EDGES[self.below(EDGES.len())];
                            bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(b, v)| *b = v);
                        }
                        field @ (Field::Bytes(_) | Field::Message(_)) => *field = text,
                    }
                }
            }
        }
        encode(&whole)
    }

    /// A few bytes changed, or the end cut off.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = encode(&self.whole);
        if self.below(8) == 0 {
            bytes.truncate(self.below(bytes.len()));
            return bytes;
        }
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
        bytes
    }
}

/// Loads a damaged model and calls it, and says what was wrong with how that went.
fn harm(bytes: &[u8], exact_quantization: bool) -> Option<String> {
    let options =
        ModelOptions::new().scheduler_config(SchedulerConfig::default()).exact_quantization(exact_quantization);
    Counting::take_greatest();
    let start = Instant::now();
    let run = || -> edgegen::Result<()> {
        let model = options.read(bytes)?;
        let mut network = model.network()?;
        let mut out = vec![0.0; network.sample_len()];
        network.bind(0, &model.blank_condition())?;
        network.predict(&vec![0.5; out.len()], 5.0, 0, &mut out)
    };
    let result = std::panic::catch_unwind(run);
    let (panics, greatest) = (PANICS.take(), Counting::take_greatest());
    let words = match &result {
        Err(_) => return Some(format!("the caller sees a panic: {panics:?}")),
        Ok(Ok(())) => String::new(),
        Ok(Err(e)) => e.to_string(),
    };
    if !panics.is_empty() {
        Some(format!("panics inside: {panics:?}"))
    } else if words.contains('\n') || words.len() > 2000 {
        Some(format!("not one line: {words:?}"))
    } else if greatest > MOST_BYTES {
        Some(format!("asks for {greatest} bytes: {words}"))
    } else if start.elapsed() > LONGEST {
        Some(format!("takes {:?}: {words}", start.elapsed()))
    } else {
        None
    }
}

/// Damages a model so often, on every core, and says what harm that did. A mutation depends on its number alone.
fn check(name: &str, bytes: &[u8], count: usize) -> Vec<String> {
    note_panics();
    let more = std::env::var("EDGEGEN_MUTATIONS").ok().and_then(|n| n.parse::<usize>().ok()).unwrap_or(1);
    let (count, next) = (count * more, AtomicUsize::new(0));
    let mutator = Mutator::new(bytes);
    let seed = name.bytes().map(u64::from).sum();
    let harms = Mutex::new(BTreeMap::<String, (usize, usize)>::new());
    let work = || {
        let mut mutator = mutator.clone();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            mutator.random = Noise::new(seed, i as u64);
            let damaged = if i % 4 == 0 { mutator.bytes() } else { mutator.graph() };
            let Some(harm) = harm(&damaged, i % 5 == 1) else { continue };
            if let Ok(folder) = std::env::var("EDGEGEN_KEEP_MUTATIONS") {
                std::fs::write(Path::new(&folder).join(format!("{name}-{i}.onnx")), &damaged).unwrap();
            }
            let mut harms = harms.lock().unwrap();
            let (times, first) = harms.entry(harm).or_insert((0, i));
            (*times, *first) = (*times + 1, i.min(*first));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    let harms = harms.into_inner().unwrap();
    harms.iter().map(|(harm, (n, i))| format!("{name}: {n} times, first mutation {i}: {harm}")).collect()
}

#[test]
fn small_models() {
    let names =
        ["picture", "sequence", "half_precision", "strange_names", "fixed_batch_3", "open_shape", "stale_value_info"];
    let check = |name: &&str| check(name, &fixture(&format!("models/{name}.onnx")), 3000);
    let harms: Vec<String> = names.iter().flat_map(check).collect();
    assert!(harms.is_empty(), "{}", harms.join("\n"));
}

#[test]
fn exported_networks() {
    let names = [
        "unet2d.ts17",
        "unet2d_condition.dy21",
        "transformer.ts17",
        "dit.dy18",
        "conditional_unet1d.ts17",
        "edm.dy21",
        "unet1d_temporal.ts17",
    ];
    let check = |name: &&str| check(name, &fixture(&format!("exports/{name}.onnx.gz")), 600);
    let harms: Vec<String> = names.iter().flat_map(check).collect();
    assert!(harms.is_empty(), "{}", harms.join("\n"));
}

#[cfg(feature = "embedded-model")]
#[test]
fn the_embedded_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-mnist.int8.onnx");
    let harms = check("embedded", &std::fs::read(path).unwrap(), 800);
    assert!(harms.is_empty(), "{}", harms.join("\n"));
}
