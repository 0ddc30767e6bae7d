//! The backend under test and its checkpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qoft_core::{BackendOptions, Matrix, Purpose, Registration};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::layer::{Layer, Opened, alone};
use crate::reference::expected_weights;
use crate::{adapter, compute, damage, foreign, input, memory, options, quantize, requantize};

/// A backend with folders of checkpoints in its format.
pub struct Subject {
    registration: &'static Registration,
    replaced: Vec<String>,
    options: BackendOptions,
    settings: Vec<Value>,
    folders: Vec<PathBuf>,
}

impl Subject {
    /// A backend without checkpoints yet.
    pub fn new(registration: &'static Registration) -> Self {
        Self {
            registration,
            replaced: Vec::new(),
            options: BackendOptions::default(),
            settings: Vec::new(),
            folders: Vec::new(),
        }
    }

    /// Adds checkpoints: folders with `config.json`, safetensors and `expected.safetensors`.
    #[must_use]
    pub fn folders<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.folders.extend(folders.into_iter().map(Into::into));
        self
    }

    /// Says that the backend is meant to take over the layers of another one.
    #[must_use]
    pub fn replacing(mut self, backend: &str) -> Self {
        self.replaced.push(backend.to_owned());
        self
    }

    /// Runs the checks with options, as `BACKEND.KEY=VALUE`.
    ///
    /// # Panics
    /// If one has another form.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options = BackendOptions::parse(options).unwrap_or_else(|e| panic!("{e}"));
        self
    }

    /// Settings by which dense weights are quantized, if the backend can do that. They are a
    /// checkpoint's `quantization_config`, too.
    #[must_use]
    pub fn settings(mut self, settings: impl IntoIterator<Item = Value>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// Runs all checks, and then [`Self::fuzz`] for as many seconds as the environment variable
    /// `FUZZ_SECONDS` says, for one if it is not set.
    ///
    /// # Panics
    /// If the backend fails one.
    pub fn check(&self) {
        assert!(!self.folders.is_empty(), "no checkpoints to check");
        let capabilities = self.registration.item().capabilities();
        let mut shapes = Vec::new();
        for (number, folder) in self.folders.iter().enumerate() {
            let opened = self.open(folder);
            let expected = expected_weights(folder);
            assert!(
                !expected.is_empty(),
                "{}: no weights in expected.safetensors",
                folder.display()
            );
            for (at, (path, expected)) in expected.iter().enumerate() {
                let layer = opened.layer(path);
                if capabilities.dequantize {
                    check_values(&layer, expected);
                }
                check_tiles(&layer, (number * 100 + at) as u64);
                memory::check(&layer);
            }
            opened.check_claims(&expected.keys().map(String::as_str).collect::<Vec<_>>());
            // One layer of each folder stands for the others where a check is slow.
            let (path, weight) = expected
                .iter()
                .nth(number % expected.len())
                .expect("not empty");
            let layer = opened.layer(path);
            compute::check(&layer);
            input::check(&layer);
            if capabilities.train {
                adapter::check(&layer);
            }
            if capabilities.requantize {
                requantize::check(&layer);
            }
            damage::check(&layer);
            shapes.push(weight.shape);
        }
        let registry = alone(self.registration);
        foreign::check(&registry, &self.replaced);
        options::check(&registry, &self.open(&self.folders[0]).checkpoint);
        if capabilities.quantize {
            let settings = &self.settings;
            assert!(!settings.is_empty(), "no settings to quantize by");
            quantize::check(&registry, settings, &shapes);
        }
        let seconds = std::env::var("FUZZ_SECONDS");
        let seconds = seconds.map_or(1, |s| s.parse().expect("FUZZ_SECONDS is a number"));
        let layers = self.fuzz(Duration::from_secs(seconds), seconds);
        println!(
            "{}: {layers} damaged layers, no panic",
            self.registration.name()
        );
    }

    /// Damages random layers in random ways for `duration`; `seed` makes it repeatable.
    /// Returns how many damaged layers were tried.
    ///
    /// # Panics
    /// If the backend panics. The damaged checkpoint is kept and named.
    pub fn fuzz(&self, duration: Duration, seed: u64) -> usize {
        let mut random = StdRng::seed_from_u64(seed);
        let (end, mut rounds) = (std::time::Instant::now() + duration, 0);
        let opened: Vec<Opened> = self.folders.iter().map(|f| self.open(f)).collect();
        let layers: Vec<(usize, String)> = (0..opened.len())
            .flat_map(|at| {
                let paths = expected_weights(&self.folders[at]).into_keys();
                paths.map(move |path| (at, path))
            })
            .collect();
        while std::time::Instant::now() < end {
            let (at, path) = &layers[random.random_range(0..layers.len())];
            damage::fuzz(&opened[*at].layer(path), &mut random);
            rounds += 1;
        }
        rounds
    }

    fn open(&self, folder: &Path) -> Opened {
        Opened::new(self.registration, &self.options, folder)
    }
}

/// The layer dequantizes bit for bit; zeros may differ in sign.
fn check_values(layer: &Layer, expected: &Matrix) {
    let found = Matrix::decode(&*layer.load(Purpose::Dequantize).weight);
    assert_eq!(found.shape, expected.shape, "{layer}");
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (*a == 0.0 && *b == 0.0);
    let mut pairs = found.values.iter().zip(&expected.values);
    if let Some(at) = pairs.position(|pair| !same(pair)) {
        let (n, k) = (at / found.shape[1], at % found.shape[1]);
        let (found, expected) = (found.values[at], expected.values[at]);
        panic!("{layer}: weight [{n}, {k}] is {found:e}, expected {expected:e}");
    }
}

/// Any tile equals that part of the whole.
fn check_tiles(layer: &Layer, seed: u64) {
    let weight = layer.load(Purpose::Forward).weight;
    let whole = Matrix::decode(&*weight);
    let [rows, cols] = whole.shape;
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..40 {
        let row = random.random_range(0..rows);
        let col = random.random_range(0..cols);
        let height = random.random_range(1..=rows - row);
        let width = random.random_range(1..=cols - col);
        let mut tile = vec![f32::NAN; height * width];
        weight.decode_tile(row..row + height, col..col + width, &mut tile);
        for (r, line) in tile.chunks_exact(width).enumerate() {
            let expected = &whole.values[(row + r) * cols + col..][..width];
            assert_eq!(line, expected, "{layer}: row {} from column {col}", row + r);
        }
    }
}
