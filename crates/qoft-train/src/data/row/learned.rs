//! What a row says about which of its parts are learned.

use serde_json::{Map, Value};

use super::wrong_type;
use crate::chat::{Message, is_assistant};
use crate::data::error::RowError;

/// The masks that run along `input_ids`: what is 0 in one of them is not learned.
pub(super) const MASKS_OF_IDS: [&str; 2] = ["completion_mask", "assistant_masks"];

/// Names under which other programs mask or weigh what is learned, and which mean nothing here.
const UNKNOWN: [&str; 34] = [
    "assistant_mask",
    "completion_masks",
    "example_weight",
    "ignore",
    "is_masked",
    "is_trainable",
    "label_mask",
    "labels_mask",
    "learnable",
    "loss_mask",
    "loss_masks",
    "loss_scale",
    "loss_weight",
    "loss_weights",
    "mask",
    "masks",
    "prompt_mask",
    "response_mask",
    "sample_weight",
    "sample_weights",
    "should_learn",
    "should_train",
    "target_mask",
    "token_weight",
    "token_weights",
    "train_detail",
    "train_mask",
    "train_on_input",
    "train_on_inputs",
    "train_on_prompt",
    "train_on_turn",
    "trainable",
    "training_detail",
    "weights",
];

/// Fields that say by true or false whether a row is learned.
const FLAGS: [&str; 2] = ["train", "training"];
/// Such fields of a message: as in ms-swift, it may have a `loss`. The `loss` of a row may be
/// anything.
const FLAGS_OF_MESSAGES: [&str; 3] = ["train", "training", "loss"];

/// Whether the row is learned, by its field `weight` and its [`FLAGS`].
pub(super) fn row_is_learned(fields: &mut Map<String, Value>) -> Result<bool, RowError> {
    refuse_unknown(fields)?;
    let is_learned = is_learned(fields, &FLAGS)?;
    for name in ["weight"].into_iter().chain(FLAGS) {
        fields.remove(name);
    }
    Ok(is_learned)
}

/// Refuses masks that belong to token ids in a row that has none.
pub(super) fn refuse_masks_of_ids(fields: &Map<String, Value>) -> Result<(), RowError> {
    match MASKS_OF_IDS
        .into_iter()
        .find(|name| fields.contains_key(*name))
    {
        Some(field) => Err(RowError::MaskWithoutIds { field }),
        None => Ok(()),
    }
}

/// Whether only the last message of the assistant is learned.
pub(super) fn only_last(fields: &mut Map<String, Value>) -> Result<bool, RowError> {
    match fields.remove("mask_history") {
        None => Ok(false),
        Some(value) => truth(&value).ok_or_else(|| wrong_type("mask_history", "true or false")),
    }
}

/// The indices of the assistant's messages that are not learned.
pub(super) fn unlearned(messages: &[Message], only_last: bool) -> Result<Vec<usize>, RowError> {
    let last = messages.iter().rposition(is_assistant);
    let mut unlearned = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        refuse_unknown(message)?;
        let is_old = only_last && Some(index) != last;
        if is_assistant(message) && (!is_learned(message, &FLAGS_OF_MESSAGES)? || is_old) {
            unlearned.push(index);
        }
    }
    Ok(unlearned)
}

/// The first message that says it is learned although it is not the assistant's.
pub(in crate::data) fn asked_of_others(messages: &[Message]) -> Option<usize> {
    let asks = |message: &Message| {
        let mut given = FLAGS.iter().filter_map(|name| message.get(*name));
        !is_assistant(message) && given.any(|value| truth(value) == Some(true))
    };
    messages.iter().position(asks)
}

fn is_learned(fields: &Map<String, Value>, flags: &[&'static str]) -> Result<bool, RowError> {
    let mut is_learned = true;
    if let Some(weight) = fields.get("weight").filter(|weight| !weight.is_null()) {
        is_learned &= truth(weight)
            .ok_or_else(|| wrong_type("weight", "0 or 1; other weights are not supported"))?;
    }
    for &name in flags {
        if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
            is_learned &= truth(value).ok_or_else(|| wrong_type(name, "true or false"))?;
        }
    }
    Ok(is_learned)
}

/// A bool, or 0 or 1 as a number.
pub(super) fn truth(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| match value.as_f64() {
        Some(0.0) => Some(false),
        Some(1.0) => Some(true),
        _ => None,
    })
}

fn refuse_unknown(fields: &Map<String, Value>) -> Result<(), RowError> {
    let is_given = |name: &&str| fields.get(*name).is_some_and(|value| !value.is_null());
    match UNKNOWN.into_iter().find(is_given) {
        Some(field) => Err(RowError::UnknownMask { field }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unlearned_with(key: &str, value: Value) -> Result<Vec<usize>, RowError> {
        let mut list = json!([{"role": "user"}, {"role": "assistant"}, {"role": "assistant"}]);
        list[1][key] = value;
        let messages = list.as_array().into_iter().flatten();
        let messages: Vec<Message> = messages.filter_map(|m| m.as_object().cloned()).collect();
        unlearned(&messages, false)
    }

    #[test]
    fn keys_of_other_programs_are_honoured_or_refused() {
        assert_eq!(unlearned_with("loss", json!(false)).unwrap(), [1]);
        assert!(unlearned_with("loss", json!(true)).unwrap().is_empty());
        assert!(unlearned_with("loss", json!(0.5)).is_err());
        for key in [
            "loss_scale",
            "trainable",
            "should_train",
            "is_masked",
            "learnable",
            "ignore",
        ] {
            let error = unlearned_with(key, json!(true)).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        // A column of a table may be called so.
        let mut row = json!({"text": "t", "loss": 2.5})
            .as_object()
            .cloned()
            .unwrap();
        assert!(row_is_learned(&mut row).unwrap());
    }
}
