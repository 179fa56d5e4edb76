//! Decoders: from latents to pictures.

use super::handle::{Exclusive, Handle, Handled};
use super::model::{EDGEGEN_MAX_RANK, dimensions, edgegen_model, get};
use super::pointer::{array, free, given, place, text, told};
use super::status::{Failure, edgegen_error, edgegen_status, guarded};
use crate::model::{Decoder, Scaling};
use std::ffi::c_char;
use std::ptr;

/// Makes pictures of samples that are latents, one at a time, in memory of its own. Give each thread its own: one that finds
/// it in use is told EDGEGEN_STATUS_BUSY.
pub struct edgegen_decoder(());

impl Handled for Exclusive<Decoder> {
    const MARK: u64 = 0x6564_6765_6765_6e64;
    const NAME: &str = "decoder";
}

/// How a decoder is read. All zeros stand for what the config.json beside it says.
#[repr(C)]
pub struct edgegen_decoder_options {
    /// What latents are divided by before they are decoded, and what is then added; a scale of 0 for both as the config.json
    /// beside the decoder has them.
    pub scale: f64,
    pub shift: f64,
    /// Threads that share each call; 0 stands for 1.
    pub threads: usize,
    /// The most bytes of memory that the decoder may take; 0 for 16 times its files, and at least 1 GiB.
    pub max_memory: usize,
}

/// What a decoder makes.
#[repr(C)]
pub struct edgegen_decoder_info {
    /// A picture's shape, such as 3, 512, 512: the first `picture_rank` of these.
    pub picture_shape: [usize; EDGEGEN_MAX_RANK],
    pub picture_rank: usize,
    /// The numbers of a picture, from -1 (black) to 1 (white), which is how many floats a buffer for it must hold.
    pub picture_len: usize,
}

/// Opens the decoder at `path`, an ONNX file or the folder that holds it as model.onnx, for the samples of `model`.
/// `options` may be null. Free it with `edgegen_decoder_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_decoder_open(
    path: *const c_char,
    model: *const edgegen_model,
    options: *const edgegen_decoder_options,
    decoder: *mut *mut edgegen_decoder,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let to = unsafe { place(decoder, "decoder")? }.write(ptr::null_mut());
        // SAFETY: C's promise.
        let path = unsafe { text(path, "path")? }.ok_or_else(|| Failure::null("path"))?;
        // SAFETY: C's promise.
        let loaded = unsafe { get(model)? };
        // SAFETY: C's promise.
        let options = unsafe { given(options, "options")? };
        let mut scaling = Scaling::new();
        if let Some(options) = options.filter(|options| options.scale != 0.0) {
            scaling = scaling.factor(options.scale).shift(options.shift);
        } else if options.is_some_and(|options| options.shift != 0.0) {
            return Err(Failure::new(edgegen_status::INVALID_ARGUMENT, "a shift of latents needs a scale"));
        }
        let threads = options.map_or(1, |options| options.threads.max(1));
        let max_memory = options.map(|options| options.max_memory).filter(|bytes| *bytes > 0);
        let opened = Decoder::open_with(path, loaded.model.sample_shape(), scaling, (threads, max_memory))?;
        *to = Handle::new(Exclusive::new(opened)).cast();
        Ok(())
    })
}

/// Frees a decoder and sets the caller's pointer to null. One that is in use stays, and the answer is EDGEGEN_STATUS_BUSY.
/// Null, or a pointer to null, is OK and does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_decoder_free(
    decoder: *mut *mut edgegen_decoder,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    // SAFETY: C's promise. Who has acquired it is the last to use it.
    guarded(error, || unsafe { free(decoder, Exclusive::<Decoder>::retire) })
}

/// Says what a decoder makes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_decoder_describe(
    decoder: *const edgegen_decoder,
    info: *mut edgegen_decoder_info,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Decoder> = unsafe { Handle::get(decoder.cast())? };
        // SAFETY: C's promise.
        let info = unsafe { place(info, "info")? };
        let decoder = handle.acquire()?;
        let (picture_shape, picture_rank) = dimensions(decoder.picture_shape())?;
        info.write(edgegen_decoder_info { picture_shape, picture_rank, picture_len: decoder.picture_len() });
        Ok(())
    })
}

/// Makes a picture of a sample into `picture`, which holds `picture_len` floats. After anything but EDGEGEN_STATUS_OK,
/// `picture` is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgegen_decode(
    decoder: *mut edgegen_decoder,
    sample: *const f32,
    sample_len: usize,
    picture: *mut f32,
    picture_len: usize,
    error: *mut edgegen_error,
) -> edgegen_status {
    // SAFETY: C's promise.
    let error = unsafe { told(error) };
    guarded(error, || {
        // SAFETY: C's promise.
        let handle: &Exclusive<Decoder> = unsafe { Handle::get(decoder.cast())? };
        let mut decoder = handle.acquire()?;
        // SAFETY: C's promise.
        let sample = unsafe { array(sample, sample_len, "sample")? };
        if picture.is_null() {
            return Err(Failure::null("picture"));
        }
        if picture_len != decoder.picture_len() || !picture.is_aligned() {
            let message =
                format!("a picture has {} floats, but there is room for {picture_len}", decoder.picture_len());
            return Err(Failure::new(edgegen_status::WRONG_SIZE, message));
        }
        let mut made = vec![0.0; picture_len];
        decoder.decode(sample, &mut made)?;
        // SAFETY: `picture` is not null and aligned, and has as many numbers, by C's promise; `made` is our own.
        unsafe { picture.copy_from_nonoverlapping(made.as_ptr(), picture_len) };
        Ok(())
    })
}
