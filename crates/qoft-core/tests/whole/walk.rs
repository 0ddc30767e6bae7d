//! `#[derive(Walk)]`.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use qoft_core::kernels::DenseWeight;
use qoft_core::{Embedding, Layer, Linear, LoadedLinear, Matrix, Norm, Walk};

fn linear() -> Linear {
    let weight = Arc::new(DenseWeight::from_f32(&[0.5; 8], [2, 4]));
    Linear::new(LoadedLinear::shared(weight), &Device::flex())
}

fn norm() -> Norm {
    Norm::root_mean_square(Tensor::ones([4], &Device::flex()), 1e-5)
}

#[derive(Walk)]
struct Model<B, H> {
    table: Embedding,
    /// Blocks of two kinds.
    blocks: Vec<B>,
    #[walk(name = "final_norm")]
    norm: Norm,
    #[walk(skip)]
    _steps: usize,
    r#type: Option<Linear>,
    heads: [H; 2],
}

#[derive(Walk)]
enum Block {
    Plain(Box<Linear>),
    Boxed(Box<Pair>),
    None,
}

#[derive(Walk)]
struct Pair {
    first: Linear,
    second: Option<Wrapped>,
}

#[derive(Walk)]
struct Wrapped(Linear);

#[derive(Walk)]
struct Nothing {
    #[walk(skip)]
    _text: &'static str,
}

/// A layer of somebody else's.
#[derive(Debug, Walk)]
#[walk(layer)]
struct Scaled(Linear);

impl Layer for Scaled {
    fn kind(&self) -> qoft_core::LayerKind {
        self.0.kind()
    }

    fn in_features(&self) -> usize {
        self.0.in_features()
    }

    fn out_features(&self) -> usize {
        self.0.out_features()
    }

    fn adapters(&self) -> &qoft_core::Adapters {
        self.0.adapters()
    }

    fn adapters_mut(&mut self) -> &mut qoft_core::Adapters {
        self.0.adapters_mut()
    }

    fn base_weight(&self) -> Matrix {
        let mut weight = self.0.base_weight();
        weight.values.iter_mut().for_each(|value| *value *= 2.0);
        weight
    }

    fn base_parameters(&self) -> usize {
        self.0.base_parameters()
    }

    fn tensors(&self) -> Vec<qoft_core::LayerTensor> {
        self.0.tensors()
    }

    fn values(&self, _: &str) -> Vec<f32> {
        self.base_weight().values
    }

    fn mergeable(&self) -> Option<&dyn qoft_core::Mergeable> {
        self.0.mergeable()
    }

    fn mergeable_mut(&mut self) -> Option<&mut dyn qoft_core::Mergeable> {
        self.0.mergeable_mut()
    }
}

mod other {
    //! What a crate has that calls the core differently.
    pub use qoft_core as renamed;

    #[derive(renamed::Walk)]
    #[walk(crate = "crate::walk::other::renamed")]
    pub struct Model {
        pub proj: renamed::Linear,
    }
}

fn model() -> Model<Block, Scaled> {
    Model {
        table: Embedding::new(Arc::new(DenseWeight::from_f32(&[0.5; 8], [2, 4]))),
        blocks: vec![
            Block::Plain(Box::new(linear())),
            Block::None,
            Block::Boxed(Box::new(Pair {
                first: linear(),
                second: Some(Wrapped(linear())),
            })),
        ],
        norm: norm(),
        _steps: 3,
        r#type: Some(linear()),
        heads: [Scaled(linear()), Scaled(linear())],
    }
}

const PATHS: [&str; 8] = [
    "table",
    "blocks.0",
    "blocks.2.first",
    "blocks.2.second",
    "final_norm",
    "type",
    "heads.0",
    "heads.1",
];

#[test]
fn fields_are_walked_in_order_below_their_names() {
    let layers: Vec<String> = model().layers().into_iter().map(|(path, _)| path).collect();
    assert_eq!(layers, PATHS);
    let mut mutable = Vec::new();
    model().walk_mut("model", &mut |path, _| mutable.push(path.to_owned()));
    assert_eq!(mutable, PATHS.map(|path| format!("model.{path}")));
}

#[test]
fn a_layer_is_visited_itself() {
    let model = model();
    let layers = model.layers();
    assert_eq!(layers[7].1.base_weight().values, [1.0; 8]);
    assert_eq!(layers[1].1.base_weight().values, [0.5; 8]);
}

#[test]
fn there_may_be_nothing_to_walk() {
    assert!(Nothing { _text: "text" }.layers().is_empty());
}

#[test]
fn the_core_may_have_another_name() {
    let model = other::Model { proj: linear() };
    assert_eq!(model.layers()[0].0, "proj");
}
