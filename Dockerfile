# Targets: gateway (the default), a static binary and nothing else; gateway-exec, the same in Debian, for handlers that are
# commands. A build behind a proxy passes GOPROXY, GOSUMDB, HTTP_PROXY and the like with --build-arg.
FROM golang:1.26-bookworm AS build
ARG GOPROXY
ARG GOSUMDB
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/gateway ./cmd/gateway \
    && install -d -o 65532 -g 65532 /rootfs/data

FROM debian:bookworm-slim AS gateway-exec
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/gateway /gateway
COPY --from=build --chown=65532:65532 /rootfs/data /data
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=6s --start-period=10s CMD ["/gateway", "healthcheck"]
ENTRYPOINT ["/gateway"]

FROM scratch AS gateway
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/gateway /gateway
COPY --from=build --chown=65532:65532 /rootfs/data /data
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=6s --start-period=10s CMD ["/gateway", "healthcheck"]
ENTRYPOINT ["/gateway"]
