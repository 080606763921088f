#!/bin/sh
# The service as a backend service that a load balancer can call out to, in the region of the load balancer.
# INSTANCE_GROUP is where lambda-policy runs, with a named port `grpc` of 50051 and `server: {listen: 0.0.0.0:50051, plaintext: allow}`.
set -eu

region=${REGION:-us-west1}
group=${INSTANCE_GROUP:?the instance group that runs lambda-policy}
zone=${ZONE:?the zone of the instance group}

gcloud compute health-checks create grpc lambda-policy --region="$region" \
    --port=50051 --grpc-service-name=lambdapolicy.v1.PolicyService

# H2C is gRPC without TLS. With `server.tls` it is HTTP2. The timeout is the backend's, and bounds a whole stream.
gcloud compute backend-services create lambda-policy --region="$region" \
    --load-balancing-scheme=INTERNAL_MANAGED --protocol=H2C --port-name=grpc --timeout=60s \
    --health-checks=lambda-policy --health-checks-region="$region"

gcloud compute backend-services add-backend lambda-policy --region="$region" \
    --instance-group="$group" --instance-group-zone="$zone"
