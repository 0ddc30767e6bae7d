//! Means to the last bit.

use qoft_scheme::mean;

#[test]
fn means_are_those_of_torch() {
    let file = std::fs::read(qoft_fixtures::path("bnb/means.json")).unwrap();
    let means: Vec<(usize, u32)> = serde_json::from_slice(&file).unwrap();
    assert!(means.len() >= 20);
    let number = |i: usize| {
        let number = (i * 7919 % 10_007) as f32 / 10_007.0;
        number * number * number
    };
    for (count, expected) in means {
        let values: Vec<f32> = (0..count).map(number).collect();
        assert_eq!(mean(&values).to_bits(), expected, "{count} numbers");
    }
}
