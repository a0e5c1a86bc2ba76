/** What a machine's state means and what to do about it. */
import { useI18n } from "vue-i18n";

import type { MachineInfo } from "@/api/types";

/** The address under which agents reach this relay. */
export const relayUrl = () => location.origin;

export function useMachineWords() {
  const { t } = useI18n();
  function nextStep(machine: MachineInfo): { text: string; command: string | null } {
    const start = "claudenest-agent service install";
    switch (machine.state) {
      case "online":
        return { text: t("machine.nextOnline"), command: null };
      case "asleep":
        return { text: t("machine.nextAsleep"), command: null };
      case "unreachable":
        return { text: t("machine.nextUnreachable"), command: "claudenest-agent doctor" };
      case "stopped":
        return { text: t("machine.nextStopped"), command: start };
      case "never_connected":
        return { text: t("machine.nextNever"), command: start };
      case "revoked":
        return { text: t("machine.nextRevoked"), command: `claudenest-agent pair --relay ${relayUrl()}` };
    }
  }
  return { nextStep };
}
