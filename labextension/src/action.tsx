/** A button that cannot be pressed again before what it does is done. */

import React, { useState } from 'react';

export function Action(props: { label: string; title?: string; off?: boolean; run: () => Promise<void> }): JSX.Element {
  const [busy, setBusy] = useState(false);
  const press = () => {
    setBusy(true);
    void props.run().finally(() => setBusy(false));
  };
  return (
    <button type="button" className="jp-mod-styled" title={props.title} disabled={busy || props.off} onClick={press}>
      {props.label}
    </button>
  );
}
