//! `report.html`: a run on one page, which needs no other file.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use qoft::core::write_file;
use qoft::train::train::{History, Summary};
use serde_json::{Map, Value};

use crate::{args, progress};

const NAME: &str = "report.html";
const STYLE: &str = "body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
    table{border-collapse:collapse}td{padding:.2em 1em .2em 0;border-bottom:1px solid #ddd}\
    svg{max-width:100%;height:auto}";

/// Writes the page of a run that is done.
pub fn write(
    folder: &Path,
    history: &History,
    summary: &Summary,
    options: &Map<String, Value>,
) -> Result<()> {
    let title = escaped(&folder.display().to_string());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<table>"
    );
    let loss = |loss: Option<f64>| loss.map(|loss| format!("{loss:.4}"));
    let [first, last] = [history.steps.first(), history.steps.last()];
    for (name, value) in [
        ("steps", Some(progress::grouped(summary.steps))),
        ("loss of the first step", loss(first.map(|step| step.loss))),
        ("loss of the last step", loss(last.map(|step| step.loss))),
        ("evaluation loss", loss(summary.eval_loss)),
    ] {
        row(&mut page, name, value.as_deref());
    }
    for (name, value) in &summary.final_metrics {
        let name = format!("{name} of the last step");
        row(&mut page, &name, Some(&format!("{value:.4}")));
    }
    for (name, value) in &summary.eval_metrics {
        let name = format!("evaluation {name}");
        row(&mut page, &name, Some(&format!("{value:.4}")));
    }
    page.push_str("</table>\n");
    for (name, svg) in history.charts()? {
        // Writing into a string does not fail.
        let _ = writeln!(page, "<h2>{}</h2>\n{svg}", escaped(&name));
    }
    page.push_str("<h2>options</h2>\n<table>");
    for (name, value) in options {
        row(&mut page, name, Some(&args::text(value)));
    }
    page.push_str("</table>\n</body></html>\n");
    Ok(write_file(&folder.join(NAME), page.as_bytes())?)
}

fn row(page: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td></tr>",
            escaped(name),
            escaped(value)
        );
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
