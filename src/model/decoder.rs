//! From latents to a picture: the decoder of a latent diffusion model's autoencoder.

use super::engine::Engine;
use super::file::File;
use super::locate;
use super::network::ModelNetwork;
use super::options::ModelOptions;
use super::time::TimeAs;
use crate::condition::Condition;
use crate::error::{Hint, model_error};
use crate::guard::guarded;
use crate::network::Network;
use crate::{Error, ErrorKind, Result};
use ::onnx::budget::Budget;
use ::onnx::signature;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// How a decoder's latents are scaled: it takes `z / factor + shift`, where z is the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Scaling {
    /// The factor; `None` for `scaling_factor` of the `config.json` beside the decoder.
    pub factor: Option<f64>,
    /// The shift; `None` for `shift_factor` of it, else 0.
    pub shift: Option<f64>,
}

impl Scaling {
    /// As the configuration says.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this factor.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = Some(factor);
        self
    }

    /// With this shift.
    pub fn shift(mut self, shift: f64) -> Self {
        self.shift = Some(shift);
        self
    }

    /// What is given, else what a configuration says, as factor and shift.
    fn with(self, config: Option<&Map<String, Value>>) -> Result<(f64, f64)> {
        let number = |key: &str| match config.and_then(|config| config.get(key)) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| {
                model_error(format!("the decoder's config.json: {key} should be a number, but is {value}"))
            }),
        };
        // of other autoencoders, which scale each channel by itself
        for key in ["latents_mean", "latents_std"] {
            if config.and_then(|config| config.get(key)).is_some_and(|value| !value.is_null()) {
                return Err(model_error(format!("the decoder's config.json: {key} is not supported")));
            }
        }
        let unknown = || {
            model_error(
                "nothing says what the decoder's latents are scaled by (scaling_factor of a config.json beside it)",
            )
            .with_hint(Hint::LatentScale)
        };
        let factor = self.factor.map_or_else(|| number("scaling_factor"), |f| Ok(Some(f)))?.ok_or_else(unknown)?;
        let shift = self.shift.map_or_else(|| number("shift_factor"), |s| Ok(Some(s)))?.unwrap_or(0.0);
        if !(factor.is_finite() && factor != 0.0 && shift.is_finite()) {
            let message = format!(
                "latents can be scaled by a finite number that is not 0, and shifted by one, not by {factor} and {shift}"
            );
            return Err(Error::invalid(message));
        }
        Ok((factor, shift))
    }
}

/// The decoder of a latent diffusion model's autoencoder, with the state to run it: it makes pictures, in the range of -1 to 1,
/// of the samples.
///
/// ```no_run
/// use edgegen::model::{Decoder, Scaling};
/// use edgegen::{Model, Request};
///
/// let model = Model::open("unet.onnx")?;
/// let mut decoder = Decoder::open("vae_decoder/model.onnx", model.sample_shape(), Scaling::new())?;
/// let mut picture = vec![0.0; decoder.picture_len()];
/// let mut generator = model.generator().build()?;
/// decoder.decode(generator.run(&Request::new(0, 0))?.sample, &mut picture)?;
/// # Ok::<(), edgegen::Error>(())
/// ```
pub struct Decoder {
    network: ModelNetwork,
    engine: Arc<Engine>,
    picture_shape: Vec<usize>,
    /// The factor that latents are multiplied by, and what is then added.
    scaling: [f32; 2],
    scaled: Vec<f32>,
}

impl Decoder {
    /// Black and white of a picture.
    pub const VALUE_RANGE: (f32, f32) = (-1.0, 1.0);

    /// Reads the ONNX file of a decoder, or the folder that holds it as `model.onnx`, for samples of this shape. A
    /// `config.json` beside the file says how latents are scaled, where that is not given.
    ///
    /// # Errors
    /// When the file cannot be read or run, takes anything but such samples, or nothing says how they are scaled.
    pub fn open(path: impl AsRef<Path>, sample_shape: &[usize], scaling: Scaling) -> Result<Self> {
        Self::open_with(path, sample_shape, scaling, (1, None))
    }

    /// The same, on so many threads, within so many bytes of memory.
    ///
    /// # Errors
    /// As there, and when there is not as much memory, or no thread.
    pub fn open_with(
        path: impl AsRef<Path>,
        sample_shape: &[usize],
        scaling: Scaling,
        (threads, max_memory): (usize, Option<usize>),
    ) -> Result<Self> {
        let path = path.as_ref();
        let read = || {
            let (file, config) = locate::decoder_file(path)?;
            let scaling = scaling.with(config.as_ref())?;
            let bytes = crate::file::read(&file, u64::MAX)
                .map_err(|e| Error::new(ErrorKind::Io, format!("the decoder cannot be read: {e}")))?;
            let budget = max_memory.map_or_else(Budget::of_files, Budget::new);
            // what is not checked of a file must not take the caller down
            guarded(|| {
                Self::build(
                    File::read_decoder(bytes.into(), Some(&file), sample_shape, &budget)?,
                    &budget,
                    scaling,
                    threads,
                )
            })
            .unwrap_or_else(|| Err(model_error("the graph is malformed: loading it failed an internal check")))
        };
        read().map_err(|e: Error| e.context(path.display()))
    }

    fn build(mut file: File, budget: &Budget, (factor, shift): (f64, f64), threads: usize) -> Result<Self> {
        let shape = shape_of_result(&file, budget)?;
        let (engine, _) = Engine::of(&mut file, &ModelOptions::new(), budget)?;
        let shape = match (&engine, shape) {
            (Engine::Tract(tract), _) => tract.result_shape().to_vec(),
            (_, Some(shape)) => shape,
            (_, None) => return Err(model_error("the shape of the decoder's output is not known")),
        };
        let [1, picture_shape @ ..] = shape.as_slice() else {
            return Err(model_error(format!(
                "a decoder gives one picture for a sample, but this gives shape {shape:?}"
            )));
        };
        let sample_shape: Arc<[usize]> = file.inputs[0].shape[1..].into();
        let scaled = vec![0.0; sample_shape.iter().product()];
        let engine = Arc::new(engine);
        let mut network =
            ModelNetwork::new(engine.clone(), file.inputs.into(), sample_shape, None, (TimeAs::Step, 1), threads)?;
        network.bind(0, &Condition::default())?;
        let scaling = [(1.0 / factor) as f32, shift as f32];
        Ok(Decoder { network, engine, picture_shape: picture_shape.into(), scaling, scaled })
    }

    /// The shape of a picture, such as `[3, 512, 512]`.
    pub fn picture_shape(&self) -> &[usize] {
        &self.picture_shape
    }

    /// The number of its elements.
    pub fn picture_len(&self) -> usize {
        self.picture_shape.iter().product()
    }

    /// What runs it: see [`Model::engine`](super::Model::engine).
    pub fn engine(&self) -> String {
        self.engine.describe()
    }

    /// Makes a picture of a sample, which is in the units of the network that made it.
    ///
    /// # Errors
    /// When one of the two is not of its length, or the decoder fails.
    pub fn decode(&mut self, sample: &[f32], picture: &mut [f32]) -> Result<()> {
        let (expected, found) = ([self.scaled.len(), self.picture_len()], [sample.len(), picture.len()]);
        if expected != found {
            let message = format!("the decoder makes {expected:?} numbers of a sample and a picture, not {found:?}");
            return Err(Error::new(ErrorKind::WrongSize, message));
        }
        let [factor, shift] = self.scaling;
        self.scaled.iter_mut().zip(sample).for_each(|(to, z)| *to = factor * z + shift);
        self.network.predict(&self.scaled, 0.0, 0, picture)?;
        match picture.iter().position(|v| !v.is_finite()) {
            Some(i) => {
                let message = format!("the decoder's picture is not finite: element {i} is {}", picture[i]);
                Err(Error::new(ErrorKind::NotFinite, message))
            }
            None => Ok(()),
        }
    }
}

/// The shape of what a file's graph gives, where the shape rules tell it.
fn shape_of_result(file: &File, budget: &Budget) -> Result<Option<Vec<usize>>> {
    let graph = file.proto.graph.as_ref().expect("reading found one");
    let opset = signature::opset(&file.proto).map_err(model_error)?;
    let inputs = file.inputs.iter().map(|i| exec::GraphInput { name: &i.name, dims: i.shape.clone(), integer: false });
    // what is taken here is dropped before the graph is compiled
    let rest = budget.rest();
    let inputs: Vec<_> = inputs.collect();
    let shapes = exec::Shapes::new(graph, opset, &inputs, &rest).ok();
    let of_output = |shapes: exec::Shapes| Some(shapes.of(&graph.output.first()?.name)?.to_vec());
    Ok(shapes.and_then(of_output))
}
