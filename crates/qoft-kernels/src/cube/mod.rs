//! Kernels for GPUs, written once for all of CubeCL's runtimes.

mod decode;
mod floats;
mod matmul;
#[cfg(all(test, feature = "ptx"))]
mod ptx;

use cubecl::client::Client;
use cubecl::prelude::{BufferArg, CubeCount, CubeDim};
use cubecl::server::Handle;

use self::matmul::{SIDE, TILE, WIDE, few_rows, tiled};
use crate::device::{DeviceLayout, DeviceWeight};

/// Up to so many rows of x, each row of the weight is decoded once, by one workgroup.
const FEW: usize = 8;
/// Workgroups along a dimension that every runtime allows.
const WORKGROUPS: usize = 65_535;

/// A packed weight in the memory of a device.
#[derive(Debug)]
pub struct Resident {
    words: Handle,
    len: usize,
    layout: DeviceLayout,
    shape: [usize; 2],
}

impl Resident {
    /// Copies a weight of `[out_features, in_features]` to the device of `client`.
    pub fn new(client: &Client, weight: DeviceWeight, shape: [usize; 2]) -> Self {
        let len = weight.words.len();
        let bytes = cubecl::bytes::Bytes::from_elems(weight.words);
        Self {
            words: client.create(bytes),
            len,
            layout: weight.layout,
            shape,
        }
    }

    /// `x · Wᵀ` for `rows` rows of `in_features` contiguous values, or with `transpose` `x · W`
    /// for rows of `out_features`.
    pub fn matmul(&self, client: &Client, x: Handle, rows: usize, transpose: bool) -> Handle {
        let [n, k] = self.shape;
        let (from, to) = if transpose { (n, k) } else { (k, n) };
        let out = client.empty(rows * to * size_of::<f32>());
        if rows * to == 0 {
            return out;
        }
        // SAFETY: the lengths are those of the buffers.
        let (x, words, y) = unsafe {
            (
                BufferArg::from_raw_parts(x, rows * from),
                BufferArg::from_raw_parts(self.words.clone(), self.len),
                BufferArg::from_raw_parts(out.clone(), rows * to),
            )
        };
        if rows <= FEW && !transpose {
            let width = n.min(WORKGROUPS);
            let count = CubeCount::Static(width as u32, n.div_ceil(width) as u32, 1);
            let dim = CubeDim::new_1d(WIDE as u32);
            // One kernel for single tokens, which are generated, and one for all else.
            let most = if rows == 1 { 1 } else { FEW };
            few_rows::launch(
                client,
                count,
                dim,
                x,
                words,
                y,
                rows,
                n,
                k,
                self.layout,
                most,
            );
        } else {
            let (width, height) = (to.div_ceil(TILE), rows.div_ceil(TILE));
            let count = CubeCount::Static(width as u32, height as u32, 1);
            let dim = CubeDim::new_2d(SIDE as u32, SIDE as u32);
            tiled::launch(
                client,
                count,
                dim,
                x,
                words,
                y,
                rows,
                n,
                k,
                self.layout,
                transpose,
            );
        }
        out
    }
}
