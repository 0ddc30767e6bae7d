//! Hostile templates end with an error, soon.

use std::time::{Duration, Instant};

use qoft_chat::{ChatError, ChatTemplate, Variables};
use serde_json::json;

fn render(source: &str) -> Result<String, ChatError> {
    let variables = json!({"text": "é".repeat(50_000)});
    let template = ChatTemplate::new(source, &Variables::new())?;
    template.render(&[], variables.as_object().unwrap(), false)
}

#[track_caller]
fn assert_limited(source: &str) {
    let start = Instant::now();
    let shown: String = source.chars().take(120).collect();
    let found = render(source);
    let time = start.elapsed();
    let length = found.as_ref().map(String::len);
    assert!(found.is_err(), "{shown}: {length:?} bytes in {time:?}");
    assert!(time < Duration::from_secs(20), "{shown}: {time:?}");
}

#[test]
fn loops_end() {
    for source in [
        "{% for i in range(100000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}x",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ text }}{% endfor %}",
        "{% for i in range(99999) %}{% if text[i] == 'x' %}{% endif %}{% endfor %}{% for i in range(99999) %}{{ text | length }}{{ text.count('a') }}{{ text == text ~ '' }}{% endfor %}",
        "{% for i in range(99999) %}{% set x = text.split('') if no else text.find('zz') %}{% if 'zz' in text or text is upper or text | wordcount %}{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{% if i in range(99999) and 99998 in range(99999) %}{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{% if (range(9999) | list) == (range(9999) | list) %}{% endif %}{% endfor %}",
    ] {
        assert_limited(source);
    }
}

#[test]
fn memory_is_bounded() {
    for source in [
        "{{ 'a' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ (0,) * 10000000000 }}",
        "{{ '%1000000000000s' | format('a') }}",
        "{{ '%100000000000d' | format(1) }}",
        "{{ '%-100000000000s' % 'a' }}",
        "{{ '%.100000000000d' % 1 }}",
        "{{ '%*d' % (100000000000, 1) }}",
        "{{ '%.100000000f' % 1.5 }}",
        "{{ '%.9999999999999999999999f' % 1.5 }}",
        "{{ '{:>100000000000}'.format('a') }}",
        "{{ '{:.1000000000f}'.format(1.5) }}",
        "{{ '{:099999999999999}'.format(1) }}",
        "{{ 'a\nb' | indent(100000000000) }}",
        "{{ 'a' | center(100000000000) }}",
        "{{ 'a'.center(100000000000) ~ 'a'.ljust(100000000000) }}",
        "{{ 'a'.rjust(100000000000) }}",
        "{{ 'a'.zfill(100000000000) }}",
        "{{ 'a\t'.expandtabs(100000000000) }}",
        "{{ [1] | batch(10000000000, 0) | list }}",
        "{{ range(10) | slice(10000000000) | list }}",
        "{{ range(99999) | join('a' * 100000) | length }}",
        "{{ ('a' * 100000).join(range(99999) | map('string')) }}",
        "{{ ('a' * 10000).replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
        "{{ [1, 2] | tojson(indent=100000000000) }}",
        "{{ range(99999) | list | tojson(indent=9999999) }}",
        "{{ range(99999) | list | tojson(separators=('a' * 99999, ':')) }}",
        "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x={'a': 1}) %}{% for i in range(150) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x='a') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ text %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% set _ = namespace(a=namespace()) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% macro m() %}{% endmacro %}{% endfor %}{% endfor %}",
        "{{ range(100000000000000) | list }}",
        "{{ range(-100000000000000000, 100000000000000000, 1) | length }}",
        "{{ strftime_now('%A' * 100000000) }}",
        "{{ text | upper | upper | list | map('upper') | list | map('center', 99999) | list }}",
    ] {
        assert_limited(source);
    }
}

#[test]
fn numbers_are_bounded() {
    for source in [
        "{{ 9 ** 999999999 }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 10 ** 38 * 10 ** 38 }}",
        "{{ 99999999999999999999999999999999999999999999 }}",
        "{{ 1e300 | int }}",
        "{{ 1.5 ** 99999 }}",
        "{{ (-8) ** 0.5 }}",
    ] {
        assert_limited(source);
    }
    assert_eq!(render("{{ 1e400 }}").unwrap(), "inf");
}

#[test]
fn nesting_is_bounded() {
    let deep = |open: &str, inner: &str, close: &str| {
        let count = 20_000;
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    let sources = [
        format!("{{{{ {} }}}}", deep("(", "1", ")")),
        format!("{{{{ {} }}}}", deep("[", "1", "]")),
        format!("{{{{ {} }}}}", deep("{1:", "1", "}")),
        format!("{{{{ {} }}}}", deep("-", "1", "")),
        format!("{{{{ {} }}}}", deep("+", "1", "")),
        format!("{{{{ {} }}}}", deep("not ", "1", "")),
        format!("{{{{ {} }}}}", deep("f(", "1", ")")),
        format!("{{{{ {} }}}}", deep("a[", "1", "]")),
        format!("{{{{ {} }}}}", deep("1 if 1 else ", "1", "")),
        format!("{{{{ 1{} }}}}", deep("", "", " if 1")),
        format!("{{{{ a{} }}}}", deep("", "", ".b")),
        format!("{{{{ a{} }}}}", deep("", "", "[0]")),
        format!("{{{{ a{} }}}}", deep("", "", "()")),
        format!("{{{{ a{} }}}}", deep("", "", "|string")),
        format!("{{{{ a {} }}}}", deep("", "", " is defined (1)")),
        format!("{{{{ a is in {} }}}}", deep("[", "1", "]")),
        deep("{% if 1 %}", "x", "{% endif %}"),
        deep("{% for x in [1] %}", "x", "{% endfor %}"),
        deep("{% set x %}", "x", "{% endset %}"),
        deep("{% macro m() %}", "x", "{% endmacro %}"),
        deep("{% filter upper %}", "x", "{% endfilter %}"),
        deep("{% with %}", "x", "{% endwith %}"),
        format!("{{% set {} = 1 %}}", deep("(", "a", ")")),
        format!("{{% for {} in [] %}}{{% endfor %}}", deep("(", "a", ")")),
        "{% set ns = namespace(d=[]) %}{% for i in range(99999) %}{% set ns.d = [ns.d] %}{% endfor %}{{ ns.d }}".to_owned(),
        "{% set ns = namespace(d={}) %}{% for i in range(99999) %}{% set ns.d = {1: ns.d} %}{% endfor %}".to_owned(),
        "{% set ns = namespace(d=(1,)) %}{% for i in range(99999) %}{% set ns.d = (ns.d, {1: ns.d}) %}{% endfor %}".to_owned(),
        "{% set ns = namespace(d=[]) %}{% for i in range(99999) %}{% set ns.d = ns.d | map('list') %}{% endfor %}{% for i in range(99999) %}{% set ns.d = [[ns.d]] | map('list') %}{% endfor %}".to_owned(),
        "{% set ns = namespace(d='a') %}{% for i in range(99999) %}{% set ns.d = cycler(ns.d) %}{% endfor %}".to_owned(),
        "{% set ns = namespace(d='a') %}{% for i in range(99999) %}{% set ns.d = joiner(ns.d) %}{% endfor %}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% macro m(x) %}{% if 1 %}{% for i in [1] %}{{ [x(x)] | join | upper }}{% endfor %}{% endif %}{% endmacro %}{{ m(m) }}".to_owned(),
        "{% macro a() %}{{ caller is defined }}{{ b() }}{% endmacro %}{% macro b() %}{% call a() %}{% endcall %}{% endmacro %}{{ a() }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.a = [ns, {'x': ns}] %}{{ ns.a }}".to_owned(),
        "{% set ns = namespace(l=none) %}{% for i in range(9999) %}{% set ns.l = namespace(n=ns.l) %}{% endfor %}{{ ns }}".to_owned(),
    ];
    for source in &sources {
        assert_limited(source);
    }
}

#[test]
fn circles_are_no_danger_where_nothing_walks_them() {
    let source = "{% set ns = namespace() %}{% set ns.a = ns %}{% set ns.l = [1] %}\
                  {% for x in [1] %}{{ loop.changed(loop) }}{% endfor %}\
                  {% macro m() %}{% endmacro %}{% set ns.m = m %}{{ ns.a.a.a.l | length }}";
    assert_eq!(render(source).unwrap(), "True1");
    let error = render("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns | tojson }}");
    assert!(error.unwrap_err().to_string().contains("namespace"));
}

#[test]
fn what_templates_really_do_stays_far_below_the_limits() {
    let long_sum = format!("{{{{ {}1 }}}}", "1 + ".repeat(2_000));
    assert_eq!(render(&long_sum).unwrap(), "2001");
    let long_text = format!("{{{{ {}'' }}}}", "'a' ~ ".repeat(2_000));
    assert_eq!(render(&long_text).unwrap().len(), 2_000);
    let branches = format!(
        "{{% if no %}}{}{{% endif %}}x",
        "{% elif no %}".repeat(2_000)
    );
    assert_eq!(render(&branches).unwrap(), "x");
    let recursive = "{% macro m(n) %}{% if n > 0 %}{% for i in [n] %}{{ m(i - 1) }}{% endfor %}\
                     {% endif %}.{% endmacro %}{{ m(40) }}";
    assert_eq!(render(recursive).unwrap().len(), 41);
    let schema = "{% set ns = namespace(d=1) %}{% for i in range(90) %}{% set ns.d = {'p': [ns.d]} \
                  %}{% endfor %}{{ ns.d | tojson | length }}{{ ns.d | string | length }}";
    assert_eq!(render(schema).unwrap(), "811811");
    let quadratic = "{% set ns = namespace(t='') %}{% for i in range(300) %}\
                     {% set ns.t = ns.t ~ text[:200] %}{% endfor %}{{ ns.t | length }}";
    assert_eq!(render(quadratic).unwrap(), "60000");
}

/// Work that is not in proportion to the elements that are charged: pairs of them, long arguments,
/// values that are compared in each round.
#[test]
fn work_is_charged_where_it_is_done() {
    for source in [
        "{% for i in range(20000) %}{{ '' if loop.changed([text] * 100) }}{% endfor %}",
        "{% for i in range(90000) %}{{ '' if loop.changed(text ~ '', [[text, i]]) }}{% endfor %}",
        "{% set a = namespace() %}{% set a.x = a %}{% set b = namespace() %}{% set b.x = b %}\
         {% for i in range(4) %}{{ loop.changed(a if i is odd else b) }}{% endfor %}",
        "{{ range(99999) | map('float') | map('string') | map('list') | map('join') | unique | \
         map('length') | map('center', 99999) | list }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(20000) %}{% set ns.l = ns.l + [(i,)] %}\
         {% endfor %}{{ ns.l | unique | list }}",
        "{% set l = range(20000) | map('float') | list %}{% for i in range(9999) %}\
         {{ '' if -1 in l }}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a'.lstrip(text) }}{{ 'a'.find(text) }}{% endfor %}",
        "{% for i in range(99999) %}{{ '' if 'a' is in(text) }}{{ 'a' | trim(text) }}{% endfor %}",
        "{{ (text.startswith((text,) * 99999)) }}",
        "{% set d = {text: 1} %}{% for i in range(99999) %}{{ d[text] }}{% endfor %}",
        "{% for i in range(99999) %}{% set d = {text: 1} %}{% endfor %}",
        "{% for i in range(99999) %}{% set d = dict([(text, 1)]) %}{% endfor %}",
        "{% macro m() %}{% endmacro %}{% set l = range(99999) | list %}\
         {% for i in range(99999) %}{{ m(*l) }}{% endfor %}",
        "{{ range(99999) | map('default', *range(99999)) | list }}",
        "{{ ([text] * 99999) | map('length') | sum }}",
        "{{ ([text] * 99999) | map('string') | map('upper') | list | length }}",
        "{{ ([{}] * 9999) | map(attribute='a.' * 99999) | list }}",
        "{{ ('%(a)s' * 90000) % {'a': 1} * 99999 }}",
    ] {
        assert_limited(source);
    }
    let name = "a".repeat(100_000);
    assert_limited(&format!(
        "{{% for i in range(99999) %}}{{{{ {name} }}}}{{% endfor %}}"
    ));
    assert_limited(&format!("{{{{ dict({name}=1) }}}}"));
}

#[test]
fn long_lists_and_arguments_are_no_matter() {
    let cases = [
        ("{{ range(20000) | unique | list | length }}", "20000"),
        (
            "{{ [1, 1.0, true, 'a', 'A', (1,), (1,), none, none, 1.5, 1.5] | unique | list }}",
            "[1, 'a', (1,), None, 1.5]",
        ),
        (
            "{{ [2 ** 60, 2.0 ** 60, 2 ** 60 + 1] | unique | list | length }}",
            "2",
        ),
        (
            "{{ ('a' * 900000).lstrip('b' * 900000 ~ 'a') | length }}",
            "0",
        ),
        ("{{ (('%(a)s' * 20000) % {'a': 1}) | length }}", "20000"),
        (
            "{% for i in [1, 1, 2] %}{{ loop.changed(i, {'a': [i]}) }}{% endfor %}",
            "TrueFalseTrue",
        ),
        (
            "{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1, 2], **{'c': 3}) }}",
            "123",
        ),
    ];
    for (source, expected) in cases {
        let start = Instant::now();
        assert_eq!(render(source).unwrap(), expected, "{source}");
        assert!(start.elapsed() < Duration::from_secs(20), "{source}");
    }
}
