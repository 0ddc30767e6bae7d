//! What documents say of times and memory, by the names under which they ask for it.

use super::Report;
use super::outcome::Outcome;
use super::step::StepRow;
use super::table::{mebibytes, number};
use super::training::Training;
use super::trend::{Point, Trend};

impl Report {
    /// The figures that documents quote. One that was not measured is missing.
    pub fn figures(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Some(trend) = &self.trend {
            found.extend(checkpointing(trend));
        }
        let mut add = |key, values: Vec<f64>, form: &dyn Fn(f64) -> String| {
            found.extend(range(values, form).map(|text| (key, text)));
        };
        let steps = self.steps.iter();
        let over_floor = steps.clone().filter_map(|row| {
            let qoft = row.qoft.measured()?;
            Some(qoft.seconds_per_step / row.floor_seconds)
        });
        add("step-over-floor", over_floor.collect(), &tenths);
        let bf16 = steps.clone().filter_map(|row| {
            let [qoft, peft] = [row.qoft.measured()?, row.peft_bf16.measured()?];
            Some(peft.seconds_per_step / qoft.seconds_per_step)
        });
        add("step-against-bf16", bf16.collect(), &tenths);
        let four_bits = self.generation.iter().filter(|row| {
            let name = row.model.as_str();
            ["nf4", "gptq4", "hqq4"]
                .iter()
                .any(|end| name.ends_with(end))
        });
        let reads = four_bits.filter_map(|row| {
            let rate = row.tokens_per_second.measured()? * row.token_bytes;
            Some(rate / row.stream_bytes)
        });
        add("generation-reads", reads.collect(), &percent);
        let merge = |end: &str| self.merges.iter().find(|row| row.model.ends_with(end));
        let seconds = |end| merge(end).and_then(|row| row.qoft_same.measured().copied());
        let faster = |end| Some(merge(end)?.peft.measured()? / seconds(end)?);
        add("merge-nf4", seconds("nf4").into_iter().collect(), &number);
        add(
            "merge-nf4-faster",
            faster("nf4").into_iter().collect(),
            &tenths,
        );
        add(
            "merge-dense-faster",
            faster("dense").into_iter().collect(),
            &tenths,
        );
        let searched = ["gptq4", "hqq4"].into_iter().filter_map(seconds);
        add("merge-searched", searched.collect(), &tenths);
        if let Some(table) = self.beside_peft() {
            found.push(("steps-beside-peft", table));
        }
        found
    }

    /// Speed and memory of steps on nf4 and int8, beside PEFT's.
    fn beside_peft(&self) -> Option<String> {
        let row = |end: &str| {
            let mut rows = self.steps.iter();
            rows.find(|row| row.model.ends_with(end) && row.shape == [4, 128])
        };
        let [nf4, int8] = [row("nf4")?, row("int8")?];
        let line = |title: &str, value: &dyn Fn(&Training) -> String| {
            let cells = |row: &StepRow| {
                let cell = |outcome: &Outcome<Training>| outcome.cell(value);
                format!("{} | {}", cell(&row.qoft), cell(&row.peft_f32))
            };
            format!("| {title} | {} | {} |", cells(nf4), cells(int8))
        };
        let peak = |training: &Training| {
            let bytes = training.peak_bytes.map(mebibytes);
            bytes.map_or_else(String::new, |mebibytes| format!("{mebibytes:.0}"))
        };
        Some(format!(
            "\n\n| | qoft, nf4 | PEFT, nf4 | qoft, int8 | PEFT, int8 |\n|---|---|---|---|---|\n{}\n{}\n{}\n\n",
            line("median time of a step, s", &|t| number(t.seconds_per_step)),
            line("tokens in a second", &|t| number(t.tokens_per_second)),
            line("peak memory, MiB", &peak),
        ))
    }
}

/// What gradient checkpointing costs and saves, in the whole model.
fn checkpointing(trend: &Trend) -> Vec<(&'static str, String)> {
    let whole = trend.depths.last();
    let points: Vec<&Point> = whole.into_iter().chain(&trend.lengths).collect();
    let both = |point: &Point| {
        let [plain, saving] = [point.plain.measured()?, point.checkpointing.measured()?];
        Some((plain.clone(), saving.clone()))
    };
    let memory = |point: Option<&Point>| {
        let (plain, saving) = both(point?)?;
        Some(percent(saving.peak_bytes? / plain.peak_bytes?))
    };
    let longer = points.iter().filter_map(|point| {
        let (plain, saving) = both(point)?;
        Some(saving.seconds_per_step / plain.seconds_per_step - 1.0)
    });
    let mut found = Vec::new();
    let longer = range(longer.collect(), &percent);
    found.extend(longer.map(|text| ("checkpointing-time", text)));
    let whole = memory(whole);
    found.extend(whole.map(|text| ("checkpointing-memory", text)));
    let longest = memory(trend.lengths.last());
    found.extend(longest.map(|text| ("checkpointing-memory-long", text)));
    found
}

/// The least and the largest value; one of them where both look alike.
fn range(values: Vec<f64>, form: &dyn Fn(f64) -> String) -> Option<String> {
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    let [from, to] = [form(least), form(most)];
    if from == to {
        return Some(from);
    }
    // The unit is said once.
    let from = from.strip_suffix(" %").unwrap_or(&from);
    Some(format!("{from} to {to}"))
}

fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_their_unit_once() {
        assert_eq!(range(vec![0.5, 0.123], &percent).unwrap(), "12 to 50 %");
        assert_eq!(range(vec![1.01, 0.99], &tenths).unwrap(), "1.0");
        assert_eq!(range(Vec::new(), &tenths), None);
    }
}
