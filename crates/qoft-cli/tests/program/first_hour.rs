//! What people do in their first hour with data of their own, as they know it from other programs.

#[cfg(all(unix, feature = "hub", feature = "serve"))]
mod using;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Options that make a training short.
const SHORT: &str = "--max-steps 2 --batch-size 2 --max-length 48 --learning-rate 1e-3";
const TEMPLATE: &str = "--chat-template chatml";

/// A command in the folder of the files below, and what it has to say or to leave.
struct Task {
    command: &'static str,
    says: &'static [&'static str],
    leaves: &'static [&'static str],
}

const fn task(
    command: &'static str,
    says: &'static [&'static str],
    leaves: &'static [&'static str],
) -> Task {
    Task {
        command,
        says,
        leaves,
    }
}

const TASKS: &[Task] = &[
    task(
        "train --model_name_or_path model --data alpaca.json --output_dir alpaca TEMPLATE SHORT",
        &["3 rows (alpaca)"],
        &[
            "alpaca/adapter_model.safetensors",
            "alpaca/README.md",
            "alpaca/tokenizer.json",
        ],
    ),
    task(
        "data preview --model model --data sharegpt.jsonl TEMPLATE -n 1",
        &[
            "(sharegpt)",
            "<|im_start|>user\nWho is it?<|im_end|>",
            "⟦It is Emma.<|im_end|>⟧",
        ],
        &[],
    ),
    task(
        "data preview --model model --data openai.jsonl TEMPLATE --train-on last",
        &[
            "(openai)",
            "It is five.<|im_end|>\n<|im_start|>user",
            "⟦Still five.<|im_end|>⟧",
        ],
        &[],
    ),
    task(
        "train --model model --data table.csv --columns prompt=question,completion=answer --output table SHORT",
        &["2 rows (prompt-completion)"],
        &["table/adapter_config.json"],
    ),
    task(
        "train --model model --data texts.jsonl.gz --output packed --packing SHORT",
        &["packed: ", "(text)"],
        &["packed/report.html", "packed/loss.svg"],
    ),
    task(
        "data preview --model model --data folder:2 --data alpaca.json:1 --max-samples 2 TEMPLATE",
        &["(text)", "(alpaca)"],
        &[],
    ),
    task(
        "train --config llamafactory.yaml",
        &["step 3/3"],
        &["saves/adapter_model.safetensors", "saves/loss.svg"],
    ),
    task(
        "train --model model --data texts.jsonl --output best SHORT --val_size 0.25 --evaluation_strategy steps \
         --eval_steps 1 --load_best_model_at_end --early_stopping_patience 2 --save_total_limit 1 \
         --report_to tensorboard,csv",
        &["are set aside to evaluate on", "step 1  evaluation loss"],
        &["best/log.csv", "best/runs"],
    ),
    task(
        "train --model model --data table.csv --columns prompt=question,completion=answer --output more \
         --init-adapter best SHORT --optim lion --lr_scheduler_type cosine --warmup_ratio 0.5",
        &["2 rows (prompt-completion)"],
        &["more/adapter_model.safetensors"],
    ),
    task(
        "train --resume-from auto --model model --data texts.jsonl --output new SHORT --save-steps 1",
        &["saved new/checkpoint-1"],
        &["new/checkpoint-2/trainer_state.json"],
    ),
    task(
        "eval --model model --adapter new --data texts.jsonl --max-length 48",
        &["loss"],
        &[],
    ),
    task(
        "estimate --model model --data texts.jsonl SHORT",
        &["peak", "time of the whole run", "it fits"],
        &[],
    ),
    task(
        "lr-find --model model --data texts.jsonl --batch-size 2 --max-length 48 --max-steps 30 \
         --target-modules all-linear",
        &["suggestion: --learning-rate"],
        &["lr-find.svg"],
    ),
];

/// Commands that fail, and the way out that they name.
const FAILING: &[(&str, &str)] = &[
    (
        "train --model model --data texts.jsonl --output x --lr 1e-3 --use_dora true",
        "not LoRA, DoRA",
    ),
    (
        "train --model model --data texts.jsonl --output x --learning_rat 1e-3",
        "--learning-rate",
    ),
    (
        "train --model model --data roles.jsonl --output x TEMPLATE",
        "'narrator'",
    ),
    (
        "train --model model --data texts.jsonl --output x --max-length 4 --overlong error",
        "texts.jsonl",
    ),
    (
        "train --model model --data texts.jsonl --output x --report_to wandb",
        "nothing is sent anywhere",
    ),
];

#[test]
fn tasks_of_the_first_hour_work() {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    for Task {
        command,
        says,
        leaves,
    } in TASKS
    {
        let (is_good, said) = run(folder.path(), command);
        assert!(is_good, "qoft {command}\n{said}");
        for text in *says {
            assert!(
                said.contains(text),
                "qoft {command}\nno `{text}` in\n{said}"
            );
        }
        for name in *leaves {
            assert!(
                folder.path().join(name).exists(),
                "qoft {command}: no {name}\n{said}"
            );
        }
    }
    for (command, way) in FAILING {
        let (is_good, said) = run(folder.path(), command);
        assert!(!is_good && said.contains(way), "qoft {command}\n{said}");
        assert!(!folder.path().join("x").exists(), "qoft {command}");
    }
}

fn run(folder: &Path, command: &str) -> (bool, String) {
    let command = command
        .replace("SHORT", SHORT)
        .replace("TEMPLATE", TEMPLATE);
    let output = Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(command.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("the program starts");
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    (output.status.success(), texts.concat())
}

fn prepare(folder: &Path) {
    let write = |name: &str, content: &[u8]| {
        fs::write(folder.join(name), content).expect("a file");
    };
    let texts: String = (0..8)
        .map(|i| format!("{{\"text\": \"Emma saw number {i} in the garden and smiled.\"}}\n"))
        .collect();
    for name in ["model", "folder"] {
        fs::create_dir(folder.join(name)).expect("a folder");
    }
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(model.join(name), folder.join("model").join(name)).expect("a copy");
    }
    write("texts.jsonl", texts.as_bytes());
    write("folder/a.jsonl", texts.as_bytes());
    write("folder/b.jsonl", texts.as_bytes());
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(texts.as_bytes()).expect("bytes");
    write("texts.jsonl.gz", &packed.finish().expect("bytes"));
    write(
        "alpaca.json",
        br#"[{"instruction": "Greet.", "input": "Emma", "output": "Good morning, Emma."},
            {"instruction": "Count.", "input": "", "output": "One, two."},
            {"instruction": "Again.", "output": "Three.", "history": [["Count.", "One, two."]]}]"#,
    );
    write(
        "sharegpt.jsonl",
        br#"{"conversations": [{"from": "human", "value": "Who is it?"}, {"from": "gpt", "value": "It is Emma."}]}"#,
    );
    write(
        "roles.jsonl",
        br#"{"conversations": [{"from": "narrator", "value": "Once"}, {"from": "gpt", "value": "upon a time"}]}"#,
    );
    write(
        "openai.jsonl",
        br#"{"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "The time?"}, {"role": "assistant", "content": "It is five."}, {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Still five."}]}"#,
    );
    write(
        "table.csv",
        b"id,question,answer\n1,Where?,\"In the garden, of course.\"\n2,When?,At five.\n",
    );
    write(
        "llamafactory.yaml",
        b"model_name_or_path: model\nstage: sft\ndo_train: true\nfinetuning_type: oft\noft_target: all\n\
          dataset: texts.jsonl\ncutoff_len: 48\noutput_dir: saves\nlogging_steps: 1\nplot_loss: true\n\
          overwrite_output_dir: true\nper_device_train_batch_size: 1\ngradient_accumulation_steps: 2\n\
          learning_rate: 1.0e-4\nmax_steps: 3\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\n\
          ddp_timeout: 180000000\nval_size: 0.25\nper_device_eval_batch_size: 1\neval_strategy: steps\n\
          eval_steps: 2\n",
    );
}
