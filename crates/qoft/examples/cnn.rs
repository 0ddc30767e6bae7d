//! Trains rotations of the filters of a small convolutional network to tell rings from crosses.
//!
//! The network itself is random and stays frozen. Run it with
//! `cargo run --release -p qoft --example cnn`.

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Initializer, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft::nn::{self, CommonConfig, Conv2d, Draw, Linear, OftConfig, Walk};

const SIDE: usize = 16;
const BATCH: usize = 32;

/// Two convolutions and a linear layer.
#[derive(Module, Debug, Walk)]
struct Cnn {
    first: Conv2d,
    second: Conv2d,
    head: Linear,
}

impl Cnn {
    fn new(device: &Device) -> Self {
        // Frozen layers do not grow into their task: each keeps the size of what it is given.
        let initializer = Initializer::KaimingNormal {
            gain: std::f64::consts::SQRT_2,
            fan_out_only: false,
        };
        let first = Conv2dConfig::new([1, 16], [5, 5])
            .with_stride([2, 2])
            .with_initializer(initializer.clone());
        let second = Conv2dConfig::new([16, 32], [3, 3]).with_initializer(initializer.clone());
        let head = LinearConfig::new(32, 2).with_initializer(initializer);
        Self {
            first: Conv2d::from(&first.init(device)),
            second: Conv2d::from(&second.init(device)),
            head: Linear::from(&head.init(device)),
        }
    }

    /// Logits of the two classes.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.second.forward(relu(self.first.forward(images))));
        let [batch, channels, height, width] = x.dims();
        let x = x.reshape([batch, channels, height * width]).mean_dim(2);
        self.head.forward(x.reshape([batch, channels]))
    }
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }
}

/// Rings (0) and crosses (1) of different sizes at different places.
fn batch(random: &mut Random, device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let mut pixels = vec![0.0f32; BATCH * SIDE * SIDE];
    let mut labels = Vec::new();
    for image in pixels.chunks_exact_mut(SIDE * SIDE) {
        let (label, radius) = (random.below(2), 3 + random.below(2));
        let [x, y] = [0, 1].map(|_| radius + random.below(SIDE - 2 * radius));
        for dy in 0..=2 * radius {
            for dx in 0..=2 * radius {
                let (from_x, from_y) = (dx.abs_diff(radius), dy.abs_diff(radius));
                let distance = from_x * from_x + from_y * from_y;
                let ring = distance.abs_diff(radius * radius) <= radius;
                let cross = from_x == from_y;
                if [ring, cross][label] {
                    image[(y + dy - radius) * SIDE + x + dx - radius] = 1.0;
                }
            }
        }
        labels.push(label as i64);
    }
    let images = TensorData::new(pixels, [BATCH, 1, SIDE, SIDE]);
    let images = Tensor::from_data(images, device);
    (images, Tensor::from_data(labels.as_slice(), device))
}

/// What is random in adapters follows from it.
const SEED: u64 = 1;

/// Trains for `steps` steps; returns the loss of each.
pub fn train(steps: usize) -> qoft::core::Result<Vec<f32>> {
    let device = Device::flex();
    device.seed(1);
    let mut model = Cnn::new(&device);
    let mut config = OftConfig::default();
    config.oft_block_size = 16;
    config.common = CommonConfig::targeting(["first", "second", "head"]);
    nn::inject(
        &mut model,
        &config,
        "shapes",
        SEED,
        &device.clone().autodiff(),
    )?;
    let mut optimizer = AdamConfig::new().init();
    let (mut random, mut losses) = (Random(7), Vec::new());
    for step in 0..steps {
        nn::begin(&mut model, Draw::new(SEED, step, 0));
        let (images, labels) = batch(&mut random, &device);
        let logits = model.forward(images);
        let labels = labels.autodiff();
        let cross_entropy = CrossEntropyLossConfig::new().init(&logits.device());
        let loss = cross_entropy.forward(logits, labels);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.01, model, gradients);
        losses.push(loss.into_scalar::<f32>());
    }
    Ok(losses)
}

fn main() -> qoft::core::Result<()> {
    let losses = train(200)?;
    for (index, losses) in losses.chunks(20).enumerate() {
        let mean = losses.iter().sum::<f32>() / losses.len() as f32;
        println!("steps from {:3}: mean loss {mean:.4}", 20 * index);
    }
    Ok(())
}
