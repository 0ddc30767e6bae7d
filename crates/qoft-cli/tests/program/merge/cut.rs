//! Layers that share their bytes.

use tempfile::tempdir;

use super::{loss, merge, near};
use crate::calibration::data;
use crate::common::json_of;
use crate::common::{arg, fixture};

/// EETQ quantized q, k and v as one matrix, gate and up as another one, and cut the bytes.
#[test]
fn layers_that_share_their_bytes_are_merged() {
    for (case, calibrated) in [
        ("fused_sm80", false),
        ("fused_sm80", true),
        ("fused_sm70", true),
    ] {
        let work = tempdir().expect("a folder");
        let model = fixture(&format!("schemes/eetq/{case}"));
        let adapter = format!("{model}/trained");
        let rows = data(work.path());
        let mut more = vec!["--data", arg(&rows)];
        if calibrated {
            more.extend(["--calibration", arg(&rows)]);
        }
        let (out, report) = merge(&model, &[&adapter], work.path(), &more);
        let [before, after] = [&model, arg(&out)].map(|folder| json_of(&["inspect", folder]));
        assert_eq!(before["layers"], after["layers"]);
        let layers = report["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 7);
        for layer in layers {
            let error = layer["relative_error"].as_f64().expect("a number");
            assert!(error < 0.02, "{case}: {layer}");
            assert_eq!(layer["searched"], true);
        }
        let losses = &report["losses"];
        let [adapted, merged] = ["adapted", "merged"].map(|key| losses[key].as_f64().unwrap());
        near(merged, loss(arg(&out), &rows, &[]), 1e-6);
        near(adapted, merged, 2e-3);
    }
}
