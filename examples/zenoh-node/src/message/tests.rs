use super::*;
use std::time::{Duration, UNIX_EPOCH};

/// What another implementation wrote: `tools/fixtures/ros_messages.py`.
macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/", $name, ".cdr")).as_slice()
    };
}

fn decode(decoder: &Decoder, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut out = vec![7.0; decoder.len()];
    decoder.decode(bytes, &mut out).map(|()| out)
}

fn refused(decoder: &Decoder, bytes: &[u8]) -> (Kind, String) {
    let Refusal { kind, message } = decode(decoder, bytes).unwrap_err();
    (kind, message)
}

fn joints(names: &[&str], fields: &[Field]) -> Decoder {
    Decoder::JointState { joints: names.iter().map(|name| name.to_string()).collect(), fields: fields.to_vec() }
}

#[test]
fn numbers_alone_are_read() {
    let decoder = Decoder::F32 { len: 2 };
    assert_eq!(decode(&decoder, &[0, 0, 0, 0x3f, 0, 0, 0xa0, 0xbf]).unwrap(), [0.5, -1.25]);
    let (kind, message) = refused(&decoder, &[0; 12]);
    assert_eq!((kind, message.as_str()), (Kind::WrongSize, "it has 12 bytes, but must have 8 (2 numbers)"));
    let (kind, message) = refused(&decoder, &[0, 0, 0, 0x3f, 0, 0, 0xc0, 0x7f]);
    assert_eq!((kind, message.as_str()), (Kind::NotFinite, "number 1 is NaN"));
}

#[test]
fn arrays_are_read_as_others_write_them() {
    // whose data begins after the first number
    let decoder = Decoder::Float32MultiArray { len: 3 };
    for bytes in [fixture!("float32"), fixture!("float32.big")] {
        assert_eq!(decode(&decoder, bytes).unwrap(), [0.5, -1.25, 3.0]);
    }
    let decoder = Decoder::Float64MultiArray { len: 3 };
    for bytes in [fixture!("float64"), fixture!("float64.big")] {
        assert_eq!(decode(&decoder, bytes).unwrap(), [0.5, -1.25, 3.0]);
    }
    let (kind, message) = refused(&Decoder::Float32MultiArray { len: 4 }, fixture!("float32"));
    assert_eq!((kind, message.as_str()), (Kind::WrongSize, "it has 3 numbers, but must have 4"));
    // a number that f32 has no room for
    let mut large = fixture!("float64").to_vec();
    let place = large.len() - 8;
    large[place..].copy_from_slice(&1e300f64.to_le_bytes());
    assert_eq!(refused(&decoder, &large).0, Kind::NotFinite);
}

#[test]
fn joints_are_taken_by_their_names() {
    let fields = [Field::Position, Field::Velocity];
    for bytes in [fixture!("joints"), fixture!("joints.big")] {
        let values = decode(&joints(&["shoulder", "elbow"], &fields), bytes).unwrap();
        assert_eq!(values, [3.5, 2.5, -3.0, -2.0]);
    }
    let (kind, message) = refused(&joints(&["shoulder", "wrist"], &fields), fixture!("joints"));
    let expected = "there is no joint 'wrist' in it: it has gripper, elbow, shoulder";
    assert_eq!((kind, message.as_str()), (Kind::WrongNames, expected));
    let (kind, message) = refused(&joints(&["shoulder"], &[Field::Effort]), fixture!("joints"));
    assert_eq!((kind, message.as_str()), (Kind::WrongSize, "it has 0 efforts of 3 joints"));
}

#[test]
fn pictures_become_planes_from_0_to_1() {
    let planes = |first: f32, places: [f32; 3]| -> Vec<f32> {
        // rows of eight bytes
        let plane = |channel: f32, of: f32| {
            (0..6).map(move |i| (first + channel + (i % 2) as f32 * of + (i / 2) as f32 * 8.0) / 255.0)
        };
        let of = if first == 10.0 { 3.0 } else { 4.0 };
        places.into_iter().flat_map(|channel| plane(channel, of)).collect()
    };
    let colour = Decoder::picture(true, (2, 3), 18).unwrap();
    for bytes in [fixture!("rgb8"), fixture!("rgb8.big")] {
        assert_eq!(decode(&colour, bytes).unwrap(), planes(10.0, [0.0, 1.0, 2.0]));
    }
    assert_eq!(decode(&colour, fixture!("bgra8")).unwrap(), planes(100.0, [2.0, 1.0, 0.0]));
    let grey = Decoder::picture(true, (2, 3), 6).unwrap();
    let expected: Vec<f32> = (0..6).map(|i| i as f32 / 255.0).collect();
    assert_eq!(decode(&grey, fixture!("mono8")).unwrap(), expected);
    let bytes: Vec<u8> = (0..18).collect();
    let plain = decode(&Decoder::picture(false, (2, 3), 18).unwrap(), &bytes).unwrap();
    assert_eq!(plain[..6], [0.0, 3.0, 6.0, 9.0, 12.0, 15.0].map(|v| v / 255.0));

    let told = |decoder: &Decoder, bytes: &[u8]| refused(decoder, bytes);
    let (kind, message) = told(&colour, fixture!("mono8"));
    let expected = "its pixels are 'mono8', but must be rgb8, bgr8, rgba8 or bgra8";
    assert_eq!((kind, message.as_str()), (Kind::WrongEncoding, expected));
    assert_eq!(told(&grey, fixture!("rgb8")).0, Kind::WrongEncoding);
    let other = Decoder::picture(true, (3, 2), 18).unwrap();
    let expected = "it is 2 by 3 pixels, but must be 3 by 2";
    assert_eq!(told(&other, fixture!("rgb8")), (Kind::WrongSize, expected.into()));
    for wrong in [(true, (2, 3), 12), (false, (2, 3), 6), (true, (0, 3), 0), (true, (usize::MAX, 2), 6)] {
        assert!(Decoder::picture(wrong.0, wrong.1, wrong.2).is_err(), "{wrong:?}");
    }
}

#[test]
fn messages_are_written_as_others_write_them() {
    let values = [0.5, -1.25];
    let at = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
    let joints = vec!["elbow".to_string(), "wrist".to_string()];
    assert_eq!(Encoder::F32.encode(&values, at), [0, 0, 0, 0x3f, 0, 0, 0xa0, 0xbf]);
    assert_eq!(Encoder::Float32MultiArray.encode(&values, at), fixture!("written_float32"));
    assert_eq!(Encoder::Float64MultiArray.encode(&values, at), fixture!("written_float64"));
    assert_eq!(Encoder::JointState { joints }.encode(&values, at), fixture!("written_joints"));
    assert_eq!(write_string("{}"), fixture!("written_string"));
    assert_eq!(write_u64((1 << 40) + 3), fixture!("written_u64"));
}

/// What a network brings may be anything. Cut short anywhere, and with any byte changed, a message is read or refused.
#[test]
fn no_bytes_do_harm() {
    let all: [(Decoder, &[u8]); 5] = [
        (Decoder::Float32MultiArray { len: 3 }, fixture!("float32")),
        (Decoder::Float64MultiArray { len: 3 }, fixture!("float64.big")),
        (joints(&["shoulder", "elbow"], &[Field::Position, Field::Velocity]), fixture!("joints")),
        (Decoder::picture(true, (2, 3), 18).unwrap(), fixture!("bgra8")),
        (Decoder::picture(true, (2, 3), 6).unwrap(), fixture!("mono8.big")),
    ];
    let (mut read, mut refused) = (0, 0);
    for (decoder, bytes) in &all {
        for end in 0..bytes.len() {
            let refusal = decode(decoder, &bytes[..end]).unwrap_err();
            assert!(matches!(refusal.kind, Kind::Garbage | Kind::WrongSize), "{decoder:?} {end}: {refusal:?}");
        }
        // up to a whole word more is what DDS fills up with
        assert!(decode(decoder, &[bytes, &[0; 3][..]].concat()).is_ok());
        let (kind, message) = super::tests::refused(decoder, &[bytes, &[0; 4][..]].concat());
        assert_eq!((kind, message.as_str()), (Kind::Garbage, "4 bytes follow the message"));
        for place in 0..bytes.len() {
            for changed in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[place] = changed;
                match decode(decoder, &bytes) {
                    Ok(values) => {
                        assert!(values.iter().all(|v| v.is_finite()));
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} were read, {refused} refused");
    // another way of writing
    let (kind, message) = super::tests::refused(&all[0].0, &[0, 7, 0, 0, 1, 2, 3, 4]);
    let expected = "it is written as 0x0007, but must be plain CDR, 0x0000 or 0x0001";
    assert_eq!((kind, message.as_str()), (Kind::WrongEncoding, expected));
}
