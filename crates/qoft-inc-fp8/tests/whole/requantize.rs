//! Changed weights in the layers of the fixtures.

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/inc-fp8");
    let layers = qoft_conformance::requantize(&qoft_inc_fp8::REGISTRATION, folders);
    let (mut written, mut cards) = (0, 0);
    for layer in layers {
        let folder = layer.folder.file_name().unwrap().to_str().unwrap();
        println!("{layer:?}");
        // The largest weight leads to the scale that it has.
        assert_eq!(layer.own, Ok(0.0), "{layer:?}");
        let expected = match (&*layer.format, folder) {
            ("fp8_e5m2", _) => 0.065,
            // A row with one large weight has the others near the smallest numbers of the format.
            (_, "gaudi3_rows") => 0.036,
            _ => 0.035,
        };
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < expected, "{layer:?}");
        cards += usize::from(folder.starts_with("two_cards"));
        written += 1;
    }
    assert!(written >= 60, "only {written} layers");
    assert!(cards >= 2, "only {cards} layers of several cards");
}
