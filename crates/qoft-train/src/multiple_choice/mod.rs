//! Questions with several answers, of which a model finds one the likeliest.

mod evaluate;
mod question;

pub use evaluate::{ChoiceEvaluation, evaluate_choices};
pub use question::Question;
