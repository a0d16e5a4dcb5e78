"""Parses expositions with Prometheus' own parser of OpenMetrics.

Each line of stdin is the text of an exposition as a JSON string. For each, one line of stdout: a list of
families, each with name, type, unit and samples ([name, labels, value]), or the error as a string.
Values are strings, because JSON has no infinity.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

for line in sys.stdin:
    try:
        families = [
            {
                "name": family.name,
                "type": family.type,
                "unit": family.unit,
                "samples": [[it.name, it.labels, str(it.value)] for it in family.samples],
            }
            for family in text_string_to_metric_families(json.loads(line))
        ]
        print(json.dumps(families), flush=True)
    except ValueError as error:
        print(json.dumps(str(error)), flush=True)
