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
#[inline(always)]
pub fn mean(values: &[f32]) -> f32 {
    let mean = MeanInParts::of(values.len());
    let parts = values.chunks_exact(mean.size());
    let rest = parts.remainder();
    mean.finish(parts.map(|part| mean.part(part)), rest)
}

/// The [`mean`] of so many numbers that threads add up parts of them, each on its own.
#[derive(Debug, Clone, Copy)]
pub struct MeanInParts {
    count: usize,
    /// How many steps a level takes, as a power of two.
    power: usize,
}

/// The sums of one part.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartOfMean([Lanes<LANES>; ROWS]);

impl MeanInParts {
    /// That of `count` numbers.
    #[inline(always)]
    pub fn of(count: usize) -> Self {
        let power = power(count / (LANES * ROWS));
        Self { count, power }
    }

    /// Numbers of a part; what the last one would have is the rest.
    #[inline(always)]
    pub fn size(self) -> usize {
        (LANES * ROWS) << self.power
    }

    /// Adds up a part of [`Self::size`] numbers.
    #[inline(always)]
    pub fn part(self, values: &[f32]) -> PartOfMean {
        let rows = values.as_chunks::<LANES>().0.as_chunks::<ROWS>().0;
        PartOfMean(sums(rows))
    }

    /// The mean, with all parts in their order, and the rest, which is smaller than a part.
    #[inline(always)]
    pub fn finish(self, parts: impl Iterator<Item = PartOfMean>, rest: &[f32]) -> f32 {
        let sum = if self.count < LANES {
            row::<1>(rest.as_chunks().0)[0]
        } else {
            let (lanes, rest) = rest.as_chunks::<LANES>();
            let (rows, odd) = lanes.as_chunks::<ROWS>();
            let parts = parts.map(|part| part.0);
            let sums = together(levels(parts, rows, self.power), odd);
            let rest = rest.iter().fold(0.0, |sum, v| sum + v);
            sums.iter().fold(rest, |sum, v| sum + v)
        };
        sum / self.count as f32
    }
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
#[inline(always)]
fn row<const N: usize>(vectors: &[Lanes<N>]) -> Lanes<N> {
    let (rows, odd) = vectors.as_chunks::<ROWS>();
    together(cascade(rows), odd)
}

/// The sum of four sums, and of vectors that are left.
#[inline(always)]
fn together<const N: usize>(sums: [Lanes<N>; ROWS], odd: &[Lanes<N>]) -> Lanes<N> {
    let [mut sum, others @ ..] = sums;
    for vector in odd.iter().chain(&others) {
        add(&mut sum, vector);
    }
    sum
}

/// How many steps of a cascade a level takes, as a power of two.
#[inline(always)]
fn power(rows: usize) -> usize {
    let bits = rows.next_power_of_two().trailing_zeros() as usize;
    (bits / LEVELS).max(4)
}

#[inline(always)]
fn cascade<const N: usize>(rows: &[[Lanes<N>; ROWS]]) -> [Lanes<N>; ROWS] {
    let power = power(rows.len());
    let parts = rows.chunks_exact(1 << power);
    let rest = parts.remainder();
    levels(parts.map(sums), rest, power)
}

/// Sums that are added to those of the next level after a power of two of steps, so that numbers
/// of like size are added up. `lowest` are those of the lowest level, `rest` the rows after them.
#[inline(always)]
fn levels<const N: usize>(
    lowest: impl Iterator<Item = [Lanes<N>; ROWS]>,
    rest: &[[Lanes<N>; ROWS]],
    power: usize,
) -> [Lanes<N>; ROWS] {
    let steps = 1 << power;
    let mut levels = [[[0.0; N]; ROWS]; LEVELS];
    let mut any = false;
    for (number, part) in lowest.enumerate() {
        any = true;
        levels[0] = part;
        let done = (number + 1) * steps;
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [[0.0; N]; ROWS]);
            add_row(&mut levels[level], &below);
            if done & ((steps - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    let mut sum = sums(rest);
    // Adding zeros changes nothing: a sum that began with 0 is never −0.
    for level in levels[1..].iter().filter(|_| any) {
        add_row(&mut sum, level);
    }
    sum
}

/// The sum of rows, one after another.
#[inline(always)]
fn sums<const N: usize>(rows: &[[Lanes<N>; ROWS]]) -> [Lanes<N>; ROWS] {
    let mut sums = [[0.0; N]; ROWS];
    for row in rows {
        add_row(&mut sums, row);
    }
    sums
}

#[inline(always)]
fn add_row<const N: usize>(sums: &mut [Lanes<N>; ROWS], row: &[Lanes<N>; ROWS]) {
    for (sum, vector) in sums.iter_mut().zip(row) {
        add(sum, vector);
    }
}

#[inline(always)]
fn add<const N: usize>(sum: &mut Lanes<N>, vector: &Lanes<N>) {
    for (sum, value) in sum.iter_mut().zip(vector) {
        *sum += value;
    }
}
