//! Small templates against what Jinja2 in transformers' settings renders from them.

use std::fs;

use serde_json::Value;

use super::{Template, on_large_stack};

#[test]
fn snippets_render_as_in_jinja2_or_are_refused() {
    let file = fs::read(qoft_fixtures::path("jinja.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let variables = file["variables"].as_object().unwrap();
    let (mut wrong, mut refused, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
    let entries = file["templates"].as_array().unwrap();
    for entry in entries {
        let source = entry[0].as_str().unwrap();
        let found = Template::parse(source)
            .and_then(|template| on_large_stack(|| template.render(variables, None)));
        match (found, entry[1].as_str()) {
            (Ok(text), Some(expected)) if text == expected => {}
            (Ok(text), Some(expected)) => {
                wrong.push(format!("{source}\n  {text:?}\n  {expected:?}"))
            }
            (Ok(text), None) => accepted.push(format!("{source}\n  {text:?}")),
            (Err(error), Some(expected)) => {
                refused.push(format!("{source}\n  {error}\n  {expected:?}"));
            }
            (Err(_), None) => {}
        }
    }
    let list = |texts: &[String]| texts.join("\n");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), list(&wrong));
    // What is refused is rare: operations that chat templates do not use.
    let few = "ranges that are printed, escapes for HTML, cyclers, groups, file sizes";
    assert!(
        refused.len() < 85,
        "{} refused, not only {few}:\n{}",
        refused.len(),
        list(&refused)
    );
    assert!(accepted.len() < 3, "Jinja refuses:\n{}", list(&accepted));
    assert!(entries.len() > 900);
}
