//! The templates of a model by name.

use std::sync::OnceLock;

use serde_json::Value;

use crate::Variables;
use crate::error::{ChatError, TemplateError};
use crate::template::Template;

/// The variable that names the template to take.
pub(crate) const CHOICE: &str = "chat_template";

const DEFAULT: &str = "default";
const WITH_TOOLS: &str = "tool_use";

/// One template, or several with names.
#[derive(Debug)]
pub(crate) enum NamedTemplates {
    One(Box<Template>),
    Several(Vec<Named>),
}

#[derive(Debug)]
pub(crate) struct Named {
    name: String,
    source: String,
    parsed: OnceLock<Result<Template, TemplateError>>,
}

impl NamedTemplates {
    pub(crate) fn one(source: &str) -> Result<Self, ChatError> {
        match Template::parse(source) {
            Ok(template) => Ok(Self::One(Box::new(template))),
            Err(source) => Err(ChatError::Syntax { name: None, source }),
        }
    }

    pub(crate) fn new(templates: impl IntoIterator<Item = (String, String)>) -> Self {
        let named = |(name, source)| Named {
            name,
            source,
            parsed: OnceLock::new(),
        };
        Self::Several(templates.into_iter().map(named).collect())
    }

    /// The template for a conversation with `variables`.
    pub(crate) fn choose(&self, variables: &Variables) -> Result<&Template, ChatError> {
        let templates = match self {
            Self::One(template) => return Ok(template),
            Self::Several(templates) => templates,
        };
        let named = |name: &str| templates.iter().find(|template| template.name == name);
        let has_tools = variables.get("tools").is_some_and(|tools| !tools.is_null());
        let wanted = match variables.get(CHOICE).and_then(Value::as_str) {
            Some(name) => name,
            None if has_tools && named(WITH_TOOLS).is_some() => WITH_TOOLS,
            None => DEFAULT,
        };
        let template = named(wanted).ok_or_else(|| ChatError::NoSuchTemplate {
            wanted: wanted.to_owned(),
            known: templates
                .iter()
                .map(|template| template.name.clone())
                .collect(),
        })?;
        let parsed = template
            .parsed
            .get_or_init(|| Template::parse(&template.source));
        parsed.as_ref().map_err(|error| ChatError::Syntax {
            name: Some(template.name.clone()),
            source: error.clone(),
        })
    }
}
