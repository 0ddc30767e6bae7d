//! OFT on models of one's own, against PEFT: the cases of its `test_custom_models.py`, run by PEFT
//! in float64, and what it gets wrong, by the mathematics. `make_custom.py` of the fixtures has both.

mod cases;
mod fixture;
mod images;
mod models;
mod several;
