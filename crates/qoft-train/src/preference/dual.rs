//! Numbers with their slopes in two others: what the chain rule asks for.

use std::ops::{Add, Mul, Neg, Sub};

/// A number, and its derivatives by the log-probabilities of the better and the worse answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dual {
    pub(super) value: f64,
    pub(super) slopes: [f64; 2],
}

impl Dual {
    /// One of the two numbers itself.
    pub(super) fn variable(value: f64, index: usize) -> Self {
        let mut slopes = [0.0; 2];
        slopes[index] = 1.0;
        Self { value, slopes }
    }

    /// A function of it, by value and slope.
    fn map(self, value: f64, slope: f64) -> Self {
        let slopes = self.slopes.map(|own| own * slope);
        Self { value, slopes }
    }

    pub(super) fn exp(self) -> Self {
        let value = self.value.exp();
        self.map(value, value)
    }

    pub(super) fn sigmoid(self) -> Self {
        let value = sigmoid(self.value);
        self.map(value, value * sigmoid(-self.value))
    }

    /// `log(sigmoid(x))`
    pub(super) fn log_sigmoid(self) -> Self {
        // Neither exponential overflows.
        let value = self.value.min(0.0) - (-self.value.abs()).exp().ln_1p();
        self.map(value, sigmoid(-self.value))
    }

    /// `log(1 − exp(x))` of numbers below 0.
    pub(super) fn log_1_minus_exp(self) -> Self {
        let rest = -self.value.exp_m1();
        self.map(rest.ln(), (rest - 1.0) / rest)
    }

    pub(super) fn square(self) -> Self {
        self.map(self.value * self.value, 2.0 * self.value)
    }

    /// It, or 0 if it is below.
    pub(super) fn positive(self) -> Self {
        match self.value > 0.0 {
            true => self,
            false => self.map(0.0, 0.0),
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Add for Dual {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let [a, b] = self.slopes;
        let [c, d] = other.slopes;
        Self {
            value: self.value + other.value,
            slopes: [a + c, b + d],
        }
    }
}

impl Neg for Dual {
    type Output = Self;

    fn neg(self) -> Self {
        self * -1.0
    }
}

impl Sub for Dual {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Dual {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let slopes = (self * other.value) + (other * self.value);
        Self {
            value: self.value * other.value,
            ..slopes
        }
    }
}

impl Mul<f64> for Dual {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.map(self.value * factor, factor)
    }
}

impl Add<f64> for Dual {
    type Output = Self;

    fn add(self, other: f64) -> Self {
        self.map(self.value + other, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_differences() {
        type Function = fn(Dual, Dual) -> Dual;
        let functions: [Function; 7] = [
            |a, b| (a * b).sigmoid(),
            |a, b| (a - b * 2.0).log_sigmoid(),
            |a, b| (a + b).exp() * a,
            |a, b| (a.square() + 0.5) * b,
            |a, _| a.log_1_minus_exp(),
            |a, b| (b - a + 1.0).positive(),
            |a, b| (-(a * 300.0)).log_sigmoid() + b,
        ];
        let step = 1e-6;
        for function in functions {
            let at = [-0.7, -0.4];
            let value = |x: [f64; 2]| function(Dual::variable(x[0], 0), Dual::variable(x[1], 1));
            for i in 0..2 {
                let mut moved = [at; 2];
                moved[0][i] += step;
                moved[1][i] -= step;
                let slope = (value(moved[0]).value - value(moved[1]).value) / (2.0 * step);
                let found = value(at).slopes[i];
                assert!(
                    (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
                    "{found} {slope}"
                );
            }
        }
        // Far out nothing overflows.
        let far = Dual::variable(-800.0, 0).log_sigmoid();
        assert_eq!((far.value, far.slopes[0]), (-800.0, 1.0));
        assert_eq!(Dual::variable(800.0, 0).log_sigmoid().value, 0.0);
    }
}
