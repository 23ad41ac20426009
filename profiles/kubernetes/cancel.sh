#!/bin/sh
# Called by Snakemake with names of jobs.
exec kubectl delete job --ignore-not-found --wait=false "$@"
