//! Searches for the scale, and the minimum, that lose least.

/// Below this, a group counts as zeros.
pub const NOTHING: f32 = 1e-15;

/// The nearest integer, halves to the even one, as adding a large number rounds.
pub fn nearest(value: f32) -> i32 {
    value.round_ties_even() as i32
}

/// Codes −`most` … `most` − 1 plus `most`, and their scale: of 19 the one with the least squared
/// error, weighted by the squares of the values.
pub fn symmetric(values: &[f32], most: i32, codes: &mut [u8]) -> f32 {
    let max = super::small::extreme(values);
    if max.abs() < NOTHING {
        codes.fill(0);
        return 0.0;
    }
    let code = |inverse: f32, value: f32| nearest(inverse * value).clamp(-most, most - 1);
    let sums = |inverse: f32| {
        let (mut lx, mut l2) = (0.0f32, 0.0f32);
        for &x in values {
            let (l, w) = (code(inverse, x) as f32, x * x);
            lx += w * x * l;
            l2 += w * l * l;
        }
        (lx, l2)
    };
    let mut place = |inverse: f32| {
        for (out, x) in codes.iter_mut().zip(values) {
            *out = (code(inverse, *x) + most) as u8;
        }
    };
    let inverse = -(most as f32) / max;
    let (lx, l2) = sums(inverse);
    place(inverse);
    let mut scale = if l2 == 0.0 { 0.0 } else { lx / l2 };
    let mut best = scale * lx;
    for step in (-9..=9).filter(|step| *step != 0) {
        let inverse = -(most as f32 + 0.1 * step as f32) / max;
        let (lx, l2) = sums(inverse);
        if l2 > 0.0 && lx * lx > best * l2 {
            place(inverse);
            scale = lx / l2;
            best = scale * lx;
        }
    }
    scale
}

/// As [`symmetric`] for few codes, which are changed one by one as long as that helps.
pub fn coordinate(values: &[f32], most: i32, codes: &mut [u8]) -> f32 {
    let max = super::small::extreme(values);
    if max.abs() < NOTHING {
        codes.fill(0);
        return 0.0;
    }
    let inverse = -(most as f32) / max;
    let (mut lx, mut l2) = (0.0f32, 0.0f32);
    let mut signed: Vec<i32> = Vec::with_capacity(values.len());
    for &x in values {
        let l = nearest(inverse * x).clamp(-most, most - 1);
        signed.push(l);
        let (l, w) = (l as f32, x * x);
        lx += w * x * l;
        l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (l, &x) in signed.iter_mut().zip(values) {
            let (w, old) = (x * x, *l as f32);
            let mut without = lx - w * x * old;
            if without <= 0.0 {
                continue;
            }
            let mut squares = l2 - w * old * old;
            let new = nearest(x * squares / without).clamp(-most, most - 1);
            if new == *l {
                continue;
            }
            without += w * x * new as f32;
            squares += w * new as f32 * new as f32;
            if squares > 0.0 && without * without * l2 > lx * lx * squares {
                (*l, lx, l2) = (new, without, squares);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for (code, l) in codes.iter_mut().zip(signed) {
        *code = (l + most) as u8;
    }
    if l2 > 0.0 { lx / l2 } else { 0.0 }
}

/// How [`asymmetric`] tries scales: from `first` on in steps of 0.1.
#[derive(Clone, Copy)]
pub struct Tries {
    pub first: f32,
    pub steps: i32,
    /// Errors count as they are, not squared.
    pub absolute: bool,
}

/// Codes 0 … `most`, their scale, and what is subtracted, which is not negative.
pub fn asymmetric(
    values: &[f32],
    weights: &[f32],
    most: i32,
    tries: Tries,
    codes: &mut [u8],
) -> (f32, f32) {
    let (mut min, mut max) = (values[0], values[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * values[0]);
    for (&x, &w) in values.iter().zip(weights).skip(1) {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += w;
        sum_x += w * x;
    }
    min = if min > 0.0 { 0.0 } else { min };
    if max == min {
        codes.fill(0);
        return (0.0, -min);
    }
    let error = |codes: &[u8], scale: f32, min: f32| {
        let mut sum = 0.0f32;
        for ((&l, &x), &w) in codes.iter().zip(values).zip(weights) {
            let difference = scale * f32::from(l) + min - x;
            let error = match tries.absolute {
                true => difference.abs(),
                false => difference * difference,
            };
            sum += w * error;
        }
        sum
    };
    let low = min;
    let place = |inverse: f32, codes: &mut [u8]| {
        for (code, &x) in codes.iter_mut().zip(values) {
            *code = nearest(inverse * (x - low)).clamp(0, most) as u8;
        }
    };
    let inverse = most as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    place(inverse, codes);
    let mut best = error(codes, scale, min);
    let mut tried = [0; 32];
    let tried = &mut tried[..values.len()];
    for step in 0..=tries.steps {
        // The range of the first codes, also after another minimum was found.
        let inverse = (tries.first + 0.1 * step as f32 + most as f32) / (max - min);
        let shifted = min;
        for (code, &x) in tried.iter_mut().zip(values) {
            *code = nearest(inverse * (x - shifted)).clamp(0, most) as u8;
        }
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((&l, &x), &w) in tried.iter().zip(values).zip(weights) {
            let l = f32::from(l);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let found = error(tried, this_scale, this_min);
            if found < best {
                codes.copy_from_slice(tried);
                (best, scale, min) = (found, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}
