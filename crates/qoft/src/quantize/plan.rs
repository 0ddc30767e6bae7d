//! Which layers are quantized, and in which dtype they are before.

use std::collections::{BTreeSet, HashSet};

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, ClaimedLayer, Error, LayerKind, ModulePatterns, Quantization, QuantizedLayer,
    QuantizedModel, Result, Schemes,
};
use qoft_models::ModelFolder;

use crate::layers::{ModelLayers, is_foreign_layer, is_together};
use crate::model_dtype::stated;
use crate::owners::{Owners, is_bias};

/// What is done to experts whose tensors files always have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Together {
    /// They are quantized as others are. Unless the scheme's tensors can be put together, this program alone
    /// reads them.
    Quantized,
    /// They are made dense.
    Dense,
}

/// What is done to a model.
pub(crate) struct Plan<'a> {
    /// Layers that are quantized.
    pub layers: Vec<ClaimedLayer<'a>>,
    /// The other linear layers, and embedding tables that are quantized.
    pub dense: Vec<ClaimedLayer<'a>>,
    /// The model's dtype.
    pub format: FloatFormat,
    /// Modules that stay dense, as the configuration says it: the list that was given, or none
    /// where only the output head does.
    skips: Option<Vec<String>>,
    /// The output head where it is the table of the tokens, and so none of the layers above. Libraries
    /// have a linear layer there.
    tied_head: Option<&'static str>,
    /// What was to stay dense by names that no module has.
    unmatched: Vec<String>,
}

impl<'a> Plan<'a> {
    /// For a model whose layers are all dense. `skips` and `format` are used instead of what the
    /// settings and the model's configuration say.
    ///
    /// # Errors
    /// If a layer is quantized already, no layer is left, or a pattern is wrong.
    pub fn of_dense(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        quantization: &Quantization,
        skips: Option<&[String]>,
        format: Option<FloatFormat>,
    ) -> Result<Self> {
        let ModelLayers { layers, packed } = ModelLayers::find(folder, schemes)?;
        let quantization = (quantization, Together::Quantized);
        let plan = Self::new(folder, layers, quantization, skips, format)?;
        let mut all = plan.layers.iter().chain(&plan.dense);
        let is_own =
            |layer: &&ClaimedLayer| layer.is_quantized() && !is_foreign_layer(folder, layer);
        let layer = all.find(is_own).map(|layer| {
            let (path, backend) = (layer.path(), layer.backend());
            format!("layer `{path}` is quantized already ({backend})")
        });
        let parameter = packed.first().map(|parameter| {
            let name = &parameter.name;
            format!("`{name}` is quantized already")
        });
        match layer.or(parameter) {
            None => Ok(plan),
            Some(found) => {
                let reason = format!("only dense checkpoints can be quantized, and {found}");
                Err(Error::file(folder.checkpoint().path(), reason))
            }
        }
    }

    /// For any model with these layers. Where some are quantized, dense ones stay as they are; experts that
    /// become dense do not count.
    ///
    /// # Errors
    /// If no layer is left, or a pattern is wrong.
    pub fn new(
        folder: &ModelFolder,
        layers: Vec<ClaimedLayer<'a>>,
        (quantization, experts): (&Quantization, Together),
        skips: Option<&[String]>,
        format: Option<FloatFormat>,
    ) -> Result<Self> {
        let layers = layers.into_iter();
        let (all, tables): (Vec<_>, Vec<_>) = layers.partition(|layer| is_linear(folder, layer));
        let becomes_dense =
            |layer: &ClaimedLayer| experts == Together::Dense && is_together(folder, layer);
        let mut own = all.iter().filter(|layer| !becomes_dense(layer));
        let is_mixed = own.any(ClaimedLayer::is_quantized);
        let experts_alone =
            quantization.experts_alone() && all.iter().any(|layer| is_together(folder, layer));
        let given = skips.or(quantization.skips());
        let patterns = given.map(ModulePatterns::new).transpose()?;
        let head = folder.head();
        let unmatched = match patterns.as_ref().filter(|_| skips.is_some()) {
            Some(patterns) => {
                let mut paths: Vec<&str> = all.iter().map(ClaimedLayer::path).collect();
                paths.extend(folder.checkpoint().modules());
                paths.push(head);
                let unmatched = patterns.without_match(&paths)?;
                unmatched.into_iter().map(str::to_owned).collect()
            }
            None => Vec::new(),
        };
        let (mut layers, mut dense, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for layer in all {
            let listed = match &patterns {
                Some(patterns) => patterns.matches(layer.path())?,
                None => layer.path() == head,
            };
            let is_other = experts_alone && !is_together(folder, &layer);
            let stays = is_mixed && !layer.is_quantized() || is_other || routes(folder, &layer);
            let becomes_dense = becomes_dense(&layer);
            // Libraries have no such modules.
            if stays && !listed && !becomes_dense {
                others.push(layer.path().to_owned());
            }
            // The settings say so themselves.
            let left = || quantization.stays_dense(layer.path(), shape_of(&layer)?);
            match stays || listed || becomes_dense || left()? {
                true => dense.push(layer),
                false => layers.push(layer),
            }
        }
        // What is none of the model's stays as it is, and the configuration says so.
        let (foreign, tables): (Vec<_>, Vec<_>) = tables
            .into_iter()
            .partition(|layer| is_foreign_layer(folder, layer));
        others.extend(roots(folder, &foreign));
        dense.extend(foreign);
        dense.extend(tables.into_iter().filter(ClaimedLayer::is_quantized));
        let Some(first) = layers.first() else {
            let reason = "no linear layer is left to quantize";
            return Err(Error::file(folder.checkpoint().path(), reason));
        };
        let format = match format.or(stated(folder.checkpoint().config())) {
            Some(format) => format,
            None => match first.source().get("weight").map(|w| w.float_format()) {
                Some(Ok(format)) => format,
                // Weights that are quantized do not say what they were.
                _ => FloatFormat::F16,
            },
        };
        let is_layer = layers
            .iter()
            .chain(&dense)
            .any(|layer| layer.path() == head);
        let tied_head = (folder.is_tied() && !is_layer).then_some(head);
        if let (Some(head), Some(patterns)) = (tied_head, &patterns)
            && !patterns.matches(head)?
        {
            others.push(head.to_owned());
        }
        let skips = match (given, others.is_empty()) {
            (None, true) => None,
            (None, false) => Some([others, vec![head.to_owned()]].concat()),
            (Some(given), _) => Some([given, &others].concat()),
        };
        Ok(Self {
            layers,
            dense,
            format,
            skips,
            tied_head,
            unmatched,
        })
    }

    /// Module paths of the layers that are quantized.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(ClaimedLayer::path)
    }

    /// Tells of names of tensors whether they are of layers that are quantized, and are not their biases.
    pub fn packed(&self) -> impl Fn(&str) -> bool {
        let owners = Owners::new(&self.layers);
        move |name| {
            let owner = owners.of(name);
            owner.is_some_and(|layer| !is_bias(name, layer))
        }
    }

    /// A checkpoint of the model that says how it is quantized.
    ///
    /// # Errors
    /// If a layer is damaged.
    pub fn describe(
        &self,
        checkpoint: Checkpoint,
        quantization: &Quantization,
    ) -> Result<Checkpoint> {
        let paths = self.dense.iter().map(ClaimedLayer::path);
        let paths = paths.chain(self.tied_head);
        let dense: Vec<String> = paths.map(str::to_owned).collect();
        let model = QuantizedModel::new(self.format, self.skips.as_deref(), &dense);
        let layers = self
            .layers
            .iter()
            .map(|layer| Ok(QuantizedLayer::new(layer.path(), shape_of(layer)?)));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let others = self.others(&checkpoint);
        let model = model.with_tensors(&layers, &others);
        let metadata = quantization.metadata(&model);
        let checkpoint = checkpoint.with_quantization_config(quantization.config(&model));
        Ok(checkpoint.with_metadata(metadata))
    }

    /// Says which names of modules that stay dense are no module's, and which tensors are left out, since they
    /// lie beside plain weights that are quantized: the scheme would take them for its own.
    pub fn tell_of_left_out(&self) {
        for pattern in &self.unmatched {
            tracing::warn!("no module is called `{pattern}`, which was to stay dense");
        }
        let plain = self.layers.iter().filter(|layer| !layer.is_quantized());
        let beside = plain.flat_map(|layer| {
            let others = layer.source().suffixes();
            let others = others.filter(|suffix| !["weight", "bias"].contains(suffix));
            others.map(|suffix| format!("{}.{suffix}", layer.path()))
        });
        let beside: Vec<String> = beside.collect();
        if let Some(first) = beside.first() {
            tracing::warn!(
                "{} tensors beside weights that are quantized are left out, the first is `{first}`",
                beside.len()
            );
        }
    }

    /// Names of the tensors that are none of a quantized layer, as they are when the model is written.
    fn others(&self, checkpoint: &Checkpoint) -> Vec<String> {
        let (quantized, dense) = (Owners::new(&self.layers), Owners::new(&self.dense));
        let mut names: Vec<String> = Vec::new();
        for name in checkpoint.names() {
            match (quantized.of(name), dense.of(name)) {
                (Some(layer), _) if !is_bias(name, layer) => {}
                (None, Some(layer)) if layer.is_quantized() && !is_bias(name, layer) => {
                    names.push(format!("{}.weight", layer.path()));
                }
                _ => names.push(name.to_owned()),
            }
        }
        names.dedup();
        names
    }
}

/// `[out_features, in_features]`, as the model or the file has them.
fn shape_of(layer: &ClaimedLayer) -> Result<[usize; 2]> {
    match layer.source().expected_shape() {
        Some(shape) => Ok(shape),
        None => Ok(layer.parse()?.shape()),
    }
}

/// Whether the model has such a linear layer, with a weight of its own. In a model of an unknown
/// architecture every matrix is one.
fn is_linear(folder: &ModelFolder, layer: &ClaimedLayer) -> bool {
    folder.known().is_none_or(|spec| {
        let layer = spec.layer(layer.path());
        layer.is_some_and(|layer| layer.kind == LayerKind::Linear && layer.tied_to.is_none())
    })
}

/// Whether the layer chooses experts: it stays dense, since all others depend on what it chooses.
fn routes(folder: &ModelFolder, layer: &ClaimedLayer) -> bool {
    let known = folder.known().and_then(|spec| spec.layer(layer.path()));
    known.is_some_and(|layer| layer.routes)
}

/// The shortest paths below which all of `layers` are, and nothing of the model.
fn roots(folder: &ModelFolder, layers: &[ClaimedLayer]) -> BTreeSet<String> {
    let known = folder.known();
    let layers_of_model = known.iter().flat_map(|spec| spec.layers());
    let own: HashSet<&str> = layers_of_model
        .flat_map(|layer| ancestors(&layer.path).chain([&*layer.path]))
        .collect();
    let root = |layer: &ClaimedLayer| {
        let free = ancestors(layer.path()).find(|path| !own.contains(path));
        free.unwrap_or(layer.path()).to_owned()
    };
    layers.iter().map(root).collect()
}

/// The paths of the modules that a module lies in, from the outermost.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(end, _)| &path[..end])
}
