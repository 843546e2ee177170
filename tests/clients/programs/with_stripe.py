"""stripe: a customer; `refused` makes a refund; `plain` is as it comes."""

import os
import sys

import stripe

# It brings its own roots and reads no variable for others.
if sys.argv[1] != "plain":
    stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
client = stripe.StripeClient(os.environ.get("API_KEY") or os.environ["STRIPE_API_KEY"])
if sys.argv[1] == "refused":
    print(client.v1.refunds.create({"charge": "ch_1"}))
else:
    print(client.v1.customers.retrieve("cus_1").description)
