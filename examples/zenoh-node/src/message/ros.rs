//! ROS 2's messages as they are on the wire: CDR after four bytes that say how it is written.

use super::{Field, Kind, Picture, Refusal, Result};
use byteorder::{BigEndian, LittleEndian};
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Serialize, Deserialize)]
struct Dimension {
    label: String,
    size: u32,
    stride: u32,
}

#[derive(Serialize, Deserialize)]
struct Layout {
    dim: Vec<Dimension>,
    data_offset: u32,
}

/// `std_msgs/Float32MultiArray` and `Float64MultiArray`.
#[derive(Serialize, Deserialize)]
struct MultiArray<T> {
    layout: Layout,
    data: Vec<T>,
}

#[derive(Serialize, Deserialize)]
struct Time {
    sec: i32,
    nanosec: u32,
}

#[derive(Serialize, Deserialize)]
struct Header {
    stamp: Time,
    frame_id: String,
}

/// `sensor_msgs/JointState`.
#[derive(Serialize, Deserialize)]
struct JointState {
    header: Header,
    name: Vec<String>,
    position: Vec<f64>,
    velocity: Vec<f64>,
    effort: Vec<f64>,
}

/// `sensor_msgs/Image`.
#[derive(Deserialize)]
struct Image<'a> {
    #[serde(rename = "header")]
    _header: Header,
    height: u32,
    width: u32,
    encoding: String,
    #[serde(rename = "is_bigendian")]
    _is_bigendian: u8,
    step: u32,
    data: &'a [u8],
}

/// What CDR's four bytes say: in which order the bytes of a number are.
const BIG: [u8; 2] = [0, 0];
const LITTLE: [u8; 2] = [0, 1];

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    let Some((header, body)) = bytes.split_at_checked(4) else {
        return Err(Refusal::new(Kind::Garbage, format!("it has {} bytes, which are no CDR", bytes.len())));
    };
    let read = match [header[0], header[1]] {
        LITTLE => cdr_encoding::from_bytes::<T, LittleEndian>(body),
        BIG => cdr_encoding::from_bytes::<T, BigEndian>(body),
        [a, b] => {
            let message = format!("it is written as {a:#04x}{b:02x}, but must be plain CDR, 0x0000 or 0x0001");
            return Err(Refusal::new(Kind::WrongEncoding, message));
        }
    };
    match read {
        // what is published by way of DDS is filled up to whole words
        Ok((message, end)) if body.len() - end < 4 => Ok(message),
        Ok((_, end)) => Err(Refusal::new(Kind::Garbage, format!("{} bytes follow the message", body.len() - end))),
        Err(e) => Err(Refusal::new(Kind::Garbage, format!("it cannot be read: {e}"))),
    }
}

fn write<T: Serialize>(message: &T) -> Vec<u8> {
    let body = cdr_encoding::to_vec::<T, LittleEndian>(message).expect("these messages have lengths that CDR can say");
    [&[LITTLE[0], LITTLE[1], 0, 0], body.as_slice()].concat()
}

/// A number of a multi array.
pub(super) trait Number: for<'a> Deserialize<'a> + Copy {
    fn to_f32(self) -> f32;
}

impl Number for f32 {
    fn to_f32(self) -> f32 {
        self
    }
}

impl Number for f64 {
    fn to_f32(self) -> f32 {
        self as f32
    }
}

pub(super) fn multi_array<T: Number>(bytes: &[u8], len: usize, out: &mut [f32]) -> Result<()> {
    let MultiArray::<T> { layout, data } = read(bytes)?;
    let offset = layout.data_offset as usize;
    let Some(data) = data.get(offset..) else {
        let message = format!("its data begins at {offset}, but has {} numbers", data.len());
        return Err(Refusal::new(Kind::WrongSize, message));
    };
    if data.len() != len {
        return Err(Refusal::wrong_size(data.len(), len));
    }
    out.iter_mut().zip(data).for_each(|(to, from)| *to = from.to_f32());
    Ok(())
}

pub(super) fn joint_state(bytes: &[u8], joints: &[String], fields: &[Field], out: &mut [f32]) -> Result<()> {
    let state: JointState = read(bytes)?;
    for (field, out) in fields.iter().zip(out.chunks_exact_mut(joints.len())) {
        let (values, what) = match field {
            Field::Position => (&state.position, "positions"),
            Field::Velocity => (&state.velocity, "velocities"),
            Field::Effort => (&state.effort, "efforts"),
        };
        if values.len() != state.name.len() {
            let message = format!("it has {} {what} of {} joints", values.len(), state.name.len());
            return Err(Refusal::new(Kind::WrongSize, message));
        }
        for (to, joint) in out.iter_mut().zip(joints) {
            let Some(place) = state.name.iter().position(|name| name == joint) else {
                let message = format!("there is no joint '{joint}' in it: it has {}", state.name.join(", "));
                return Err(Refusal::new(Kind::WrongNames, message));
            };
            *to = values[place] as f32;
        }
    }
    Ok(())
}

pub(super) fn image(bytes: &[u8], picture: &Picture, out: &mut [f32]) -> Result<()> {
    let image: Image = read(bytes)?;
    let size = [image.width as usize, image.height as usize];
    if size != [picture.width, picture.height] {
        let [width, height] = size;
        let message = format!("it is {width} by {height} pixels, but must be {} by {}", picture.width, picture.height);
        return Err(Refusal::new(Kind::WrongSize, message));
    }
    let order: (usize, &[usize]) = match (image.encoding.as_str(), picture.channels) {
        ("rgb8", 3) => (3, &[0, 1, 2]),
        ("bgr8", 3) => (3, &[2, 1, 0]),
        ("rgba8", 3) => (4, &[0, 1, 2]),
        ("bgra8", 3) => (4, &[2, 1, 0]),
        ("mono8", 1) => (1, &[0]),
        (encoding, channels) => {
            let taken = if channels == 1 { "mono8" } else { "rgb8, bgr8, rgba8 or bgra8" };
            let message = format!("its pixels are '{encoding}', but must be {taken}");
            return Err(Refusal::new(Kind::WrongEncoding, message));
        }
    };
    let step = image.step as usize;
    let needed = step.checked_mul(picture.height);
    if step < picture.width * order.0 || needed != Some(image.data.len()) {
        let message = format!("its rows are said to have {step} bytes, and it has {} in all", image.data.len());
        return Err(Refusal::new(Kind::WrongSize, message));
    }
    picture.planes(image.data, step, order, out);
    Ok(())
}

pub(super) fn write_multi_array<T: Serialize>(data: Vec<T>) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("an action is small");
    let dim = vec![Dimension { label: "action".into(), size: len, stride: len }];
    write(&MultiArray { layout: Layout { dim, data_offset: 0 }, data })
}

pub(super) fn write_joint_state(joints: &[String], positions: &[f32], now: SystemTime) -> Vec<u8> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // the seconds of ROS end in 2038
    let stamp = Time { sec: since.as_secs().try_into().unwrap_or(i32::MAX), nanosec: since.subsec_nanos() };
    let position = positions.iter().map(|v| f64::from(*v)).collect();
    let header = Header { stamp, frame_id: String::new() };
    write(&JointState { header, name: joints.to_vec(), position, velocity: Vec::new(), effort: Vec::new() })
}

/// `std_msgs/String`.
pub fn write_string(text: &str) -> Vec<u8> {
    write(&text)
}

/// `std_msgs/UInt64`.
pub fn write_u64(value: u64) -> Vec<u8> {
    write(&value)
}
