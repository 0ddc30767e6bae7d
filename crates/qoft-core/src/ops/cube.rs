//! Operations on GPUs: the product with a packed weight has kernels, and what has none is computed
//! on the host.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError, Weak};

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Slice};
use burn_cubecl::CubeDevice;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use qoft_kernels::cube::Resident;
use qoft_kernels::{DenseWeight, PackedWeight};

use super::host::{Copied, HostTensors};
use super::packed::{PackedOps, SharedWeight, product_shape};

/// Bytes of a tile of a weight that no kernel decodes.
const TILE: usize = 16 << 20;

impl HostTensors for Cube {
    type Held = Copied;

    fn hold(tensor: FloatTensor<Self>) -> Copied {
        Copied::read::<Self>(tensor)
    }
}

impl PackedOps for Cube {
    fn packed_matmul(x: CubeTensor, weight: SharedWeight, transpose: bool) -> CubeTensor {
        match resident(&weight, &x) {
            Some(resident) => product(x, &resident, weight.shape(), transpose),
            None => by_tiles(x, &*weight, transpose),
        }
    }
}

/// The product with a weight of `shape` on the device of `x`.
fn product(x: CubeTensor, weight: &Resident, shape: [usize; 2], transpose: bool) -> CubeTensor {
    assert_eq!(x.dtype, DType::F32, "packed products are computed in f32");
    let x = into_contiguous(x);
    let y = product_shape(&x.shape(), shape, transpose);
    let rows = y.iter().rev().skip(1).product();
    let (client, device) = (x.client.clone(), x.device.clone());
    let out = weight.matmul(&client, x.handle, rows, transpose);
    CubeTensor::new_contiguous(client, device, y.into(), out, DType::F32)
}

/// The product with a weight that only the host decodes, or that is too large for a buffer: tile by
/// tile, each time.
fn by_tiles(x: CubeTensor, weight: &dyn PackedWeight, transpose: bool) -> CubeTensor {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        let format = weight.info().format;
        tracing::warn!(
            "weights of format {format} have no GPU kernel, or are larger than a buffer of the GPU: \
             the CPU decodes them, which is slow"
        );
    });
    let [n, k] = weight.shape();
    let height = (TILE / size_of::<f32>() / k.max(1)).max(1);
    let last = x.rank() - 1;
    let mut products = (0..n).step_by(height).map(|start| {
        let rows = start..(start + height).min(n);
        let shape = [rows.len(), k];
        let mut values = vec![0.0; rows.len() * k];
        weight.decode_tile(rows.clone(), 0..k, &mut values);
        let tile = DenseWeight::from_f32(&values, shape).device_weight();
        let tile = Resident::new(&x.client, tile.expect("a tile is small"), shape);
        let mut slices = vec![Slice::full(); last];
        slices.push(rows.into());
        let x = match transpose {
            true => Cube::float_slice(x.clone(), &slices),
            false => x.clone(),
        };
        product(x, &tile, shape, transpose)
    });
    if transpose {
        let first = products.next().expect("a weight has rows");
        products.fold(first, Cube::float_add)
    } else {
        Cube::float_cat(products.collect(), last)
    }
}

/// Weights that were copied to a device, for as long as they exist on the host.
static RESIDENTS: LazyLock<Mutex<HashMap<Key, Entry>>> = LazyLock::new(Mutex::default);

/// The address of a weight, which an [`Entry`] keeps from being used again, and the device.
type Key = (usize, CubeDevice);

struct Entry {
    weight: Weak<dyn PackedWeight>,
    resident: Arc<Resident>,
}

/// The copy of a weight on the device of `x`, made when it is asked for first; `None` if there are
/// no kernels for it, or it is larger than a buffer may be.
fn resident(weight: &SharedWeight, x: &CubeTensor) -> Option<Arc<Resident>> {
    let address = Arc::as_ptr(weight).cast::<()>() as usize;
    let mut residents = RESIDENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (address, x.device.clone());
    if let Some(entry) = residents.get(&key) {
        return Some(entry.resident.clone());
    }
    let words = weight.device_weight()?;
    let most = x.client.properties().memory.max_page_size;
    if (words.words.len() * size_of::<u32>()) as u64 > most {
        return None;
    }
    residents.retain(|_, entry| entry.weight.strong_count() > 0);
    let resident = Arc::new(Resident::new(&x.client, words, weight.shape()));
    let entry = Entry {
        weight: Arc::downgrade(weight),
        resident: resident.clone(),
    };
    residents.insert(key, entry);
    Some(resident)
}
