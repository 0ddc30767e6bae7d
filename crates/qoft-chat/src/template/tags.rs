//! The `{% generation %}` tags of transformers, which enclose the assistant's text.
//!
//! `minijinja` cannot be taught new tags, so the tags become a filter block before it parses the
//! template. Its own lexer tells what is a tag and what is text, a comment or a string.

use minijinja::machinery::{Token, tokenize};

use crate::error::TemplateError;

/// The name of the filter that stands for the tags.
pub(super) const FILTER: &str = "__generation";

/// The tokens of the longest tag, so that no expression nests deeper.
const LONGEST_TAG: usize = 20_000;

/// Rewrites the tags of a template into filter blocks.
pub(super) fn replace(source: &str) -> Result<String, TemplateError> {
    let mut replaced = String::with_capacity(source.len());
    let mut copied = 0;
    let mut opens = false;
    let mut length = 0;
    let mut tag = None;
    for token in tokenize(source, false, Default::default(), Default::default()) {
        let (token, span) = token.map_err(|error| TemplateError::syntax(&error))?;
        length = match token {
            Token::BlockStart | Token::VariableStart => 0,
            _ => length + 1,
        };
        if length > LONGEST_TAG {
            return Err(TemplateError::unsupported(
                "a tag of more than 20,000 words and signs",
                span.start_line.into(),
            ));
        }
        match (&token, tag.take()) {
            (Token::Ident(name), _) if opens => {
                let statement = match *name {
                    "generation" => Some("filter __generation"),
                    "endgeneration" => Some("endfilter"),
                    _ => None,
                };
                tag = statement.map(|statement| {
                    (
                        statement,
                        span.start_offset as usize,
                        span.end_offset as usize,
                    )
                });
            }
            (Token::BlockEnd, Some((statement, start, end))) => {
                replaced.push_str(&source[copied..start]);
                replaced.push_str(statement);
                copied = end;
            }
            _ => {}
        }
        opens = matches!(token, Token::BlockStart);
    }
    replaced.push_str(&source[copied..]);
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_their_signs_and_other_tags_stay() {
        let replaced = replace(
            "{%- generation -%}{% if a %}x{%endif%}{%endgeneration%}{{ '%}' }}{%+ generation +%}",
        );
        assert_eq!(
            replaced.unwrap(),
            "{%- filter __generation -%}{% if a %}x{%endif%}{%endfilter%}{{ '%}' }}\
             {%+ filter __generation +%}"
        );
    }

    #[test]
    fn what_is_no_tag_stays_as_it_is() {
        for source in [
            "",
            "{% set generation = 1 %}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{{ '{% generation %}' }}",
        ] {
            assert_eq!(replace(source).unwrap(), source);
        }
    }
}
