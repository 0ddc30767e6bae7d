//! Means as torch adds them up on a CPU: libraries write the last bit of some down.

/// Numbers that torch adds beside each other.
const LANES: usize = 8;
/// Sums that are kept beside each other.
const ROWS: usize = 4;
/// Levels of sums of sums.
const LEVELS: usize = 4;

type Lanes<const N: usize> = [f32; N];

/// The mean of some numbers, as `torch.mean` has it for a contiguous tensor or along its last
/// dimension. torch shares more than 32 768 of them out to its threads, whose number
/// then decides about the last bit.
pub fn mean(values: &[f32]) -> f32 {
    let sum = if values.len() < LANES {
        row::<1>(values.as_chunks().0)[0]
    } else {
        let (lanes, rest) = values.as_chunks::<LANES>();
        let sums = row(lanes);
        let rest = rest.iter().fold(0.0, |sum, v| sum + v);
        sums.iter().fold(rest, |sum, v| sum + v)
    };
    sum / values.len() as f32
}

/// The mean of column `at` of a contiguous matrix of `columns` columns, as `torch.mean` has it along
/// the first dimension. `values` are those of the column.
pub fn column_mean(values: &[f32], at: usize, columns: usize) -> f32 {
    // Columns that are added up beside each other are added from top to bottom.
    let beside = match columns {
        ..LANES => ROWS,
        _ => ROWS * LANES,
    };
    let sum = match at < columns / beside * beside {
        true => {
            let rows: Vec<[Lanes<1>; ROWS]> = values.iter().map(|v| [[*v]; ROWS]).collect();
            cascade(&rows)[0][0]
        }
        false => row::<1>(values.as_chunks().0)[0],
    };
    sum / values.len() as f32
}

/// The sum of vectors, of which four at a time go to sums of their own.
fn row<const N: usize>(vectors: &[Lanes<N>]) -> Lanes<N> {
    let (rows, rest) = vectors.as_chunks::<ROWS>();
    let [mut sum, others @ ..] = cascade(rows);
    for vector in rest.iter().chain(&others) {
        add(&mut sum, vector);
    }
    sum
}

/// Sums that are added to those of the next level after a power of two of steps, so that numbers
/// of like size are added up.
fn cascade<const N: usize>(rows: &[[Lanes<N>; ROWS]]) -> [Lanes<N>; ROWS] {
    let bits = rows.len().next_power_of_two().trailing_zeros() as usize;
    let power = (bits / LEVELS).max(4);
    let steps = 1 << power;
    let mut levels = [[[0.0; N]; ROWS]; LEVELS];
    let (whole, rest) = rows.split_at(rows.len() / steps * steps);
    for (number, steps_rows) in whole.chunks_exact(steps).enumerate() {
        for row in steps_rows {
            add_row(&mut levels[0], row);
        }
        let done = (number + 1) * steps;
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [[0.0; N]; ROWS]);
            add_row(&mut levels[level], &below);
            if done & ((steps - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    let [mut sum, others @ ..] = levels;
    for row in rest.iter().chain(&others) {
        add_row(&mut sum, row);
    }
    sum
}

fn add_row<const N: usize>(sums: &mut [Lanes<N>; ROWS], row: &[Lanes<N>; ROWS]) {
    for (sum, vector) in sums.iter_mut().zip(row) {
        add(sum, vector);
    }
}

fn add<const N: usize>(sum: &mut Lanes<N>, vector: &Lanes<N>) {
    for (sum, value) in sum.iter_mut().zip(vector) {
        *sum += value;
    }
}
