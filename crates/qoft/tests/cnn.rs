//! The example of a convolutional network learns.

#[path = "../examples/cnn.rs"]
#[allow(dead_code)]
mod example;

#[test]
fn rotated_filters_learn_shapes() {
    let losses = example::train(60).unwrap();
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let (first, last) = (mean(&losses[..10]), mean(&losses[50..]));
    assert!(last < 0.8 * first, "{first} {last}");
}
