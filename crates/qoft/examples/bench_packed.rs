//! Times of the product with packed weights, on the device that `QOFT_DEVICE` names:
//! `cargo xtask bench-gpu` runs it on a GPU.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use qoft::core::kernels::{CodeMap, Codes, FloatFormat, Floats, GroupedWeight, Groups, Scales};
use qoft::core::kernels::{WeightError, Zeros};
use qoft::core::{PackedWeight, default_device, ops};

/// Outputs and inputs of the layers.
const SHAPES: [[usize; 2]; 2] = [[4096, 4096], [11_008, 4096]];
/// Rows of the input: one token, a few, and batches of training.
const ROWS: [usize; 4] = [1, 16, 512, 4096];
/// A measurement takes at least so long.
const LONG: Duration = Duration::from_millis(500);

/// Codes that look random.
fn codes(bits: u32, count: usize) -> Codes {
    let code = |i: usize| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8;
    Codes::pack(bits, (0..count).map(code))
}

fn scales(groups: usize) -> Result<Floats, WeightError> {
    let values: Vec<f32> = (0..groups).map(|g| 0.01 + (g % 7) as f32 * 1e-3).collect();
    Floats::from_f32(&values, FloatFormat::F16)
}

/// Weights as bitsandbytes' nf4, EETQ's int8 and GPTQ in 4 bits have them.
fn weights(shape: [usize; 2]) -> Result<[(&'static str, GroupedWeight); 3], WeightError> {
    let [n, k] = shape;
    let make = |bits, map, groups: Groups| {
        let scales = Scales::Plain(scales(groups.count(shape))?);
        let codes = codes(bits, n * k);
        Ok(GroupedWeight::builder(shape, codes, map, groups, scales))
    };
    let table = Box::new(std::array::from_fn(|i| i as f32 / 7.5 - 1.0));
    let nf4 = make(4, CodeMap::Table16(table), Groups::Flat(64))?.build("nf4")?;
    let int8 = make(8, CodeMap::Int8, Groups::ROW)?.build("int8")?;
    let groups = Groups::Blocks([1, 128]);
    let zeros = Zeros::Integers(vec![8; groups.count(shape)].into());
    let gptq = make(4, CodeMap::Unsigned, groups)?.zeros(zeros);
    let gptq = gptq.rounding(FloatFormat::F16).build("gptq")?;
    Ok([("nf4", nf4), ("int8", int8), ("gptq 4", gptq)])
}

/// The time of one call, on a device that works while the program goes on.
fn time(device: &Device, call: impl Fn()) -> Result<f64, Box<dyn Error>> {
    // The first call compiles kernels and copies the weight.
    call();
    device.sync()?;
    let mut calls = 1;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        device.sync()?;
        let took = start.elapsed();
        if took >= LONG {
            return Ok(took.as_secs_f64() / f64::from(calls));
        }
        calls *= 2;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = default_device()?;
    println!("{device:?}");
    println!("weight      out     in  rows      ms  weight GB/s  TFLOP/s");
    for shape in SHAPES {
        for (name, weight) in weights(shape)? {
            let bytes = weight.packed_bytes() as f64;
            let weight: Arc<dyn PackedWeight> = Arc::new(weight);
            let [n, k] = shape;
            for rows in ROWS {
                let x = Tensor::<2>::random([rows, k], Distribution::Default, &device);
                let seconds = time(&device, || {
                    ops::packed_matmul(x.clone(), &weight);
                })?;
                println!(
                    "{name:8} {n:6} {k:6} {rows:5} {:7.2} {:12.1} {:8.2}",
                    seconds * 1e3,
                    bytes / seconds / 1e9,
                    2.0 * (rows * n * k) as f64 / seconds / 1e12
                );
            }
        }
    }
    Ok(())
}
