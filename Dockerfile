# The gateway as an image: one static binary, what it is made of (CycloneDX), and
# the certificates of the public authorities. Both base images can be replaced with build arguments.
ARG GO_IMAGE=golang:1.26-alpine
ARG BASE_IMAGE=scratch

FROM ${GO_IMAGE} AS build
# Where modules come from; empty is Go's own default.
ARG GOPROXY=
# auto records the commit in the binary when the context is a Git repository
# and git is at hand; false never does.
ARG BUILDVCS=auto
WORKDIR /src

# Modules first: they change less often than the code. The checksums in go.sum
# hold whatever the source.
COPY go.mod go.sum ./
RUN go mod download

# Without git the binary only lacks its version.
# hadolint ignore=DL3018
RUN command -v git || apk add --no-cache git || echo "no git: the binary will not know its version"

COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs="$BUILDVCS" -ldflags "-s -w" -o /out/apiproxy . \
 && go run ./e2e/sbom /out/apiproxy >/out/sbom.cdx.json

FROM ${BASE_IMAGE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/apiproxy /apiproxy
COPY --from=build /out/sbom.cdx.json /sbom.cdx.json
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/apiproxy", "-healthcheck"]
ENTRYPOINT ["/apiproxy"]
