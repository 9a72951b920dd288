# Images of Miroir: `docker build --target miroir` for the control plane (with the filter's module inside, to be
# handed to Envoy), `docker build --target filter` for the filter alone, as meshes fetch it (`oci://…`).
#
# Base images are pinned by digest; use `--build-arg` for newer ones.
ARG RUST_IMAGE=rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
ARG DEBIAN_IMAGE=debian:bookworm-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251

FROM ${RUST_IMAGE} AS build
WORKDIR /src
RUN rustup target add wasm32-wasip1
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p miroir \
 && CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_PANIC=abort \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
    cargo build --release --locked -p miroir-filter --target wasm32-wasip1 \
 && mkdir /out \
 && cp target/release/miroir target/wasm32-wasip1/release/miroir_filter.wasm /out/

# One layer with `plugin.wasm`, which Istio's agent and Envoy Gateway look for in an image.
FROM scratch AS filter
COPY --from=build /out/miroir_filter.wasm /plugin.wasm

FROM ${DEBIAN_IMAGE} AS miroir
COPY --from=build /out/miroir /usr/local/bin/miroir
COPY --from=build /out/miroir_filter.wasm /usr/share/miroir/miroir_filter.wasm
# Volumes that are mounted here get this owner. Envoy in docker-compose.yml runs as the same user.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/miroir && install -d -m 0750 -o 10001 -g 10001 /etc/miroir
USER 10001:10001
ENV MIROIR_LISTEN=0.0.0.0:7799 MIROIR_DATA=/var/lib/miroir
EXPOSE 7799
VOLUME /var/lib/miroir
ENTRYPOINT ["miroir"]
CMD ["serve"]
