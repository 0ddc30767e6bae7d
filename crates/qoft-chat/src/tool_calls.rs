//! The arguments of called functions, which conversations have as objects or as texts of JSON.
//!
//! A template is written for one of the two: it writes an object as JSON, or puts a text where it
//! belongs. Which one that is shows when it renders.

use serde_json::{Value, json};

use crate::budget::{Budget, Limits};
use crate::error::ChatError;
use crate::python::from_json_object;
use crate::python::json::to_json;
use crate::{ChatTemplate, Message, Variables};

/// Prepared messages with the arguments of their calls as the template takes them: as they are,
/// unless it fails on them, or writes a text as one within JSON. Must run on a large stack.
///
/// An object that a template writes as Python shows a dict stays one: transformers does no other.
pub(crate) fn with_arguments(
    template: &ChatTemplate,
    messages: Vec<Message>,
    variables: &Variables,
) -> Result<Vec<Message>, ChatError> {
    let mut objects = messages.clone();
    // What a template writes for arguments in the form that it is not made for.
    let mut wrong = Vec::new();
    let mut has_calls = false;
    each_arguments(&mut objects, &mut |arguments| {
        has_calls = true;
        if let Some(text) = arguments.as_str()
            && let Ok(object @ Value::Object(_)) = serde_json::from_str(text)
        {
            wrong.extend(written(&json!({"": text}), |value| to_json(value, &[])));
            *arguments = object;
        }
    });
    if !has_calls {
        return Ok(messages);
    }
    let is_right = |messages: &[Message]| {
        let text = template.render_prepared(messages, variables, false)?;
        Ok::<_, ChatError>(!wrong.iter().any(|written| text.contains(written)))
    };
    let given = is_right(&messages);
    if matches!(given, Ok(true)) {
        return Ok(messages);
    }
    if matches!(is_right(&objects), Ok(true)) {
        return Ok(objects);
    }
    let mut texts = messages.clone();
    each_arguments(&mut texts, &mut |arguments| {
        if arguments.is_object()
            && let Some(text) = written(&json!({"": arguments}), |value| to_json(value, &[]))
        {
            *arguments = text.into();
        }
    });
    match (given, is_right(&texts)) {
        (_, Ok(true)) => Ok(texts),
        (Err(error), _) => Err(error),
        _ => Ok(messages),
    }
}

/// Hands on the arguments of all calls in messages.
fn each_arguments(messages: &mut [Message], visit: &mut dyn FnMut(&mut Value)) {
    let calls = messages
        .iter_mut()
        .filter_map(|message| message.get_mut("tool_calls"));
    for call in calls.filter_map(Value::as_array_mut).flatten() {
        let has_function = call.get("function").is_some_and(Value::is_object);
        let function = if has_function {
            call.get_mut("function")
        } else {
            Some(call)
        };
        if let Some(arguments) = function.and_then(|function| function.get_mut("arguments")) {
            visit(arguments);
        }
    }
}

/// The only value of an object as Python writes it in some way.
fn written(
    object: &Value,
    write: impl Fn(&minijinja::Value) -> Result<String, minijinja::Error>,
) -> Option<String> {
    let object = object.as_object()?;
    let _budget = Budget::start(&Limits::for_input(object));
    write(&from_json_object(object).get_attr("").ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str, arguments: Value) -> String {
        let template = "{% for m in messages %}{{ m.role }}{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}".to_owned()
            + template
            + "{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(&template, &Variables::new()).unwrap();
        let messages = json!([{"role": "user"}, {"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": arguments}},
        ]}]);
        let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
        template
            .render_whole(&messages, &Variables::new())
            .unwrap()
            .text
    }

    #[test]
    fn texts_and_objects_are_the_same_to_every_template() {
        let json = r#"{"city": "Zürich", "days": [1, 2.5, true, null]}"#;
        let object: Value = serde_json::from_str(json).unwrap();
        for (template, expected) in [
            ("{{ a | tojson }}", json),
            ("{{ '' + a }}", json),
            (
                "{% if a is string %}{{ a }}{% else %}{{ a | tojson }}{% endif %}",
                json,
            ),
            ("{% for k, v in a.items() %}{{ k }}{% endfor %}", "citydays"),
        ] {
            let expected = format!("userassistant{expected}");
            assert_eq!(rendered(template, object.clone()), expected, "{template}");
            assert_eq!(rendered(template, json!(json)), expected, "{template}");
        }
        assert_eq!(rendered("{{ a | tojson }}", json!("{}")), "userassistant{}");
        assert_eq!(
            rendered("{{ a }}", json!(json)),
            format!("userassistant{json}")
        );
        let shown = "userassistant{'city': 'Zürich', 'days': [1, 2.5, True, None]}";
        assert_eq!(rendered("{{ a }}", object), shown);
        assert_eq!(
            rendered("{{ a }}", json!("no JSON")),
            "userassistantno JSON"
        );
    }
}
