//! Values into blocks, as llama.cpp's reference quantizers make them.

mod k;
mod levels;
mod search;
mod small;

use rayon::prelude::*;

use crate::block::BlockType;

/// Blocks that one task makes.
const PIECE: usize = 64;

/// The blocks of values, of which there are whole ones. All are finite.
pub fn quantize(block: BlockType, values: &[f32]) -> Vec<u8> {
    let make = match block {
        BlockType::Q4_0 => small::q4_0,
        BlockType::Q4_1 => small::q4_1,
        BlockType::Q5_0 => small::q5_0,
        BlockType::Q5_1 => small::q5_1,
        BlockType::Q8_0 => small::q8_0,
        BlockType::Mxfp4 => levels::mxfp4,
        BlockType::Iq4Nl => levels::iq4_nl,
        BlockType::Iq4Xs => levels::iq4_xs,
        BlockType::Q2K => k::q2,
        BlockType::Q3K => k::q3,
        BlockType::Q4K => k::q4,
        BlockType::Q5K => k::q5,
        BlockType::Q6K => k::q6,
    };
    let (count, size) = (values.len() / block.values(), block.bytes());
    let mut out = vec![0; count * size];
    out.par_chunks_mut(PIECE * size)
        .zip(values.par_chunks(PIECE * block.values()))
        .for_each(|(out, values)| {
            let values = values.chunks_exact(block.values());
            for (out, values) in out.chunks_exact_mut(size).zip(values) {
                make(values, out);
            }
        });
    out
}
