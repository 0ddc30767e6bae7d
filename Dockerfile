# docker build -t qoft . && docker run --rm -it -v "$PWD:/work" qoft train --help
FROM rust:1.95-slim-trixie AS build
WORKDIR /qoft
COPY . .
RUN cargo build --release --locked --features parquet-zstd && scripts/package.sh linux

FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /qoft/target/release/qoft /usr/local/bin/qoft
WORKDIR /work
ENTRYPOINT ["qoft"]
