//! From messages to numbers, and back. Every message is foreign: what is not exactly what was agreed on is refused.

mod ros;

use serde::Deserialize;
use std::time::SystemTime;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It cannot be read.
    Garbage,
    /// It has another number of numbers, or pixels.
    WrongSize,
    /// It is written in a way that is not taken, or has pixels of a kind that is not.
    WrongEncoding,
    /// A joint is not in it.
    WrongNames,
    /// A number is infinite, or none.
    NotFinite,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Garbage, Kind::WrongSize, Kind::WrongEncoding, Kind::WrongNames, Kind::NotFinite];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Garbage => "garbage",
            Kind::WrongSize => "wrong_size",
            Kind::WrongEncoding => "wrong_encoding",
            Kind::WrongNames => "wrong_names",
            Kind::NotFinite => "not_finite",
        }
    }
}

/// A message that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub kind: Kind,
    /// What was wrong, and what would be right.
    pub message: String,
}

impl Refusal {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Refusal { kind, message: message.into() }
    }

    fn wrong_size(found: usize, needed: usize) -> Self {
        Refusal::new(Kind::WrongSize, format!("it has {found} numbers, but must have {needed}"))
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// What is taken of a joint.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Position,
    Velocity,
    Effort,
}

/// The size of a picture, and its channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
}

/// Reads the messages of one observation.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoder {
    /// Numbers alone, of four bytes, the lowest byte first.
    F32 { len: usize },
    /// `std_msgs/Float32MultiArray`.
    Float32MultiArray { len: usize },
    /// `std_msgs/Float64MultiArray`.
    Float64MultiArray { len: usize },
    /// `sensor_msgs/JointState`: of these joints the fields, one after the other.
    JointState { joints: Vec<String>, fields: Vec<Field> },
    /// Bytes alone: the rows of a picture, the channels of a pixel together.
    Bytes(Picture),
    /// `sensor_msgs/Image`.
    Image(Picture),
}

impl Decoder {
    /// That of a picture which comes to `len` numbers: `rgb8`, or what a `sensor_msgs/Image` says.
    ///
    /// # Errors
    /// When it has neither one nor three channels.
    pub fn picture(is_ros: bool, (width, height): (usize, usize), len: usize) -> std::result::Result<Decoder, String> {
        let pixels = width.checked_mul(height).filter(|pixels| *pixels > 0);
        let channels = pixels.filter(|pixels| len.is_multiple_of(*pixels)).map(|pixels| len / pixels);
        let picture = |channels| Picture { width, height, channels };
        match (channels, is_ros) {
            (Some(channels @ (1 | 3)), true) => Ok(Decoder::Image(picture(channels))),
            (Some(3), false) => Ok(Decoder::Bytes(picture(3))),
            _ => Err(format!(
                "width, height: {width} by {height} pixels do not make the {len} numbers that the policy takes"
            )),
        }
    }

    /// How many numbers come of a message.
    pub fn len(&self) -> usize {
        match self {
            Decoder::F32 { len } | Decoder::Float32MultiArray { len } | Decoder::Float64MultiArray { len } => *len,
            Decoder::JointState { joints, fields } => joints.len().saturating_mul(fields.len()),
            Decoder::Bytes(p) | Decoder::Image(p) => p.width * p.height * p.channels,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a message into as many numbers as [`len`](Self::len) says.
    ///
    /// # Errors
    /// When it is not what was agreed on. The numbers are then of no use.
    pub fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        match self {
            Decoder::F32 { len } => {
                if bytes.len() != len * 4 {
                    let message = format!("it has {} bytes, but must have {} ({len} numbers)", bytes.len(), len * 4);
                    return Err(Refusal::new(Kind::WrongSize, message));
                }
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *to = f32::from_le_bytes(*from);
                }
            }
            Decoder::Float32MultiArray { len } => ros::multi_array::<f32>(bytes, *len, out)?,
            Decoder::Float64MultiArray { len } => ros::multi_array::<f64>(bytes, *len, out)?,
            Decoder::JointState { joints, fields } => ros::joint_state(bytes, joints, fields, out)?,
            Decoder::Bytes(picture) => {
                let row = picture.width * 3;
                if bytes.len() != row * picture.height {
                    let needed = row * picture.height;
                    let message = format!("it has {} bytes, but must have {needed}", bytes.len());
                    return Err(Refusal::new(Kind::WrongSize, message));
                }
                picture.planes(bytes, row, (3, &[0, 1, 2]), out);
            }
            Decoder::Image(picture) => ros::image(bytes, picture, out)?,
        }
        match out.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(Refusal::new(Kind::NotFinite, format!("number {i} is {}", out[i]))),
            None => Ok(()),
        }
    }
}

impl Picture {
    /// Rows of `row` bytes, as planes of numbers from 0 to 1: the channels at `order` of the `of` bytes of each pixel.
    fn planes(&self, bytes: &[u8], row: usize, (of, order): (usize, &[usize]), out: &mut [f32]) {
        let planes = out.chunks_exact_mut(self.width * self.height);
        for (plane, channel) in planes.zip(order) {
            for (to, from) in plane.chunks_exact_mut(self.width).zip(bytes.chunks(row)) {
                for (to, pixel) in to.iter_mut().zip(from.chunks_exact(of)) {
                    *to = f32::from(pixel[*channel]) / 255.0;
                }
            }
        }
    }
}

/// Writes the messages of actions.
#[derive(Clone, Debug, PartialEq)]
pub enum Encoder {
    /// Numbers alone, of four bytes, the lowest byte first.
    F32,
    /// `std_msgs/Float32MultiArray`.
    Float32MultiArray,
    /// `std_msgs/Float64MultiArray`.
    Float64MultiArray,
    /// `sensor_msgs/JointState`, whose positions they are.
    JointState { joints: Vec<String> },
}

impl Encoder {
    pub fn encode(&self, values: &[f32], now: SystemTime) -> Vec<u8> {
        match self {
            Encoder::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Encoder::Float32MultiArray => ros::write_multi_array(values.to_vec()),
            Encoder::Float64MultiArray => ros::write_multi_array(values.iter().map(|v| f64::from(*v)).collect()),
            Encoder::JointState { joints } => ros::write_joint_state(joints, values, now),
        }
    }
}

pub use ros::{write_string, write_u64};

#[cfg(test)]
mod tests;
