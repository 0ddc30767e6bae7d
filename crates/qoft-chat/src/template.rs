//! One chat template: parsed, changed to Python's rules, compiled, rendered.
//!
//! `minijinja` parses, compiles and runs templates, but on values and operators of its own.
//! Templates rely on Python's: so operators, subscripts and literals of the parsed template are
//! replaced by calls of functions that do what Python does ([`rewrite`]), and those of its filters,
//! tests and methods that differ have another implementation ([`environment`]).

mod environment;
mod literals;
mod rewrite;
#[cfg(test)]
mod snippets;
mod tags;

use std::collections::BTreeMap;
use std::thread;

use minijinja::AutoEscape;
use minijinja::machinery::{CodeGenerator, Instructions, Vm, WhitespaceConfig};
use minijinja::machinery::{make_string_output, parse};
use minijinja::value::Value;
use self_cell::self_cell;

use crate::Variables;
use crate::budget::{Budget, Limits};
use crate::error::TemplateError;
pub(crate) use environment::MARKS;

/// The name of templates, which nothing shows.
const NAME: &str = "chat template";

/// The longest text of a template; the longest published ones have 20,000 bytes.
const LONGEST: usize = 1 << 18;

struct Compiled<'s> {
    instructions: Instructions<'s>,
    has_generation: bool,
}

self_cell!(
    struct Program {
        owner: String,
        #[covariant]
        dependent: Compiled,
    }
);

/// A compiled template.
pub(crate) struct Template {
    program: Program,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = self.program.borrow_owner();
        f.debug_tuple("Template").field(source).finish()
    }
}

impl Template {
    /// Parses and compiles the text of a template.
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateError> {
        if source.len() > LONGEST {
            return Err(TemplateError::too_long(source.len(), LONGEST));
        }
        on_large_stack(|| {
            let source = tags::replace(&unix_lines(source))?;
            let program = Program::try_new(source, |source| compile(source))?;
            Ok(Self { program })
        })
    }

    /// Whether the template marks the assistant's text with `{% generation %}`.
    pub(crate) fn has_generation(&self) -> bool {
        self.program.borrow_dependent().has_generation
    }

    /// Renders the template with `variables`, with `marks` before and behind each text that it
    /// marks with `{% generation %}`. Must run on a large stack.
    pub(crate) fn render(
        &self,
        variables: &Variables,
        marks: Option<[char; 2]>,
    ) -> Result<String, TemplateError> {
        let limits = Limits::for_input(variables);
        let _budget = Budget::start(&limits);
        let mut environment = environment::shared().clone();
        environment.set_fuel(Some(limits.steps));
        let root = crate::python::from_json_object(variables);
        let marks = marks.map(|marks| Value::from(marks.map(String::from).to_vec()));
        let root = minijinja::value::merge_maps([
            root,
            [(MARKS, marks.unwrap_or_default())].into_iter().collect(),
        ]);
        self.program.with_dependent(|_, compiled| {
            let mut text = String::new();
            // Templates with blocks are refused.
            let blocks = BTreeMap::new();
            let vm = Vm::new(&environment);
            let result = vm.eval(
                &compiled.instructions,
                root,
                &blocks,
                &mut make_string_output(&mut text),
                AutoEscape::None,
            );
            result.map_err(|error| TemplateError::render(&error))?;
            Ok(text)
        })
    }
}

fn compile(source: &str) -> Result<Compiled<'_>, TemplateError> {
    let whitespace = WhitespaceConfig {
        keep_trailing_newline: false,
        lstrip_blocks: true,
        trim_blocks: true,
    };
    let parsed = parse(source, NAME, Default::default(), whitespace);
    let parsed = parsed.map_err(|error| TemplateError::syntax(&error))?;
    if begins_raw_line(source) {
        return Err(TemplateError::unsupported(
            "{% raw %} before the end of a line",
            0,
        ));
    }
    let (rewritten, has_generation) = rewrite::rewrite(&parsed, source)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&rewritten);
    let (instructions, _) = generator.finish();
    Ok(Compiled {
        instructions,
        has_generation,
    })
}

/// Whether the end of a line follows `{% raw %}`, where Jinja keeps it and `minijinja` does not.
fn begins_raw_line(source: &str) -> bool {
    source.split("{%").skip(1).any(|tag| {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let end = tag.strip_prefix("raw").map(str::trim_start);
        end.is_some_and(|end| end.trim_start_matches('+').starts_with("%}\n"))
    })
}

/// Jinja writes each end of a line as a line feed.
fn unix_lines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// The stack on which templates are parsed and run; only what is used of it becomes memory.
const STACK: usize = 1 << 29;

/// Runs `work` on a thread with a stack that no template within the limits can use up. A panic in it
/// is an error.
pub(crate) fn on_large_stack<T: Send, E: From<TemplateError> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("chat template".to_owned())
            .stack_size(STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                Err(TemplateError::engine("the template engine gave up on it").into())
            }),
            Err(error) => {
                let message = format!("there is no thread to run it: {error}");
                Err(TemplateError::engine(&message).into())
            }
        }
    })
}
